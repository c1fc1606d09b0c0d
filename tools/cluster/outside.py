"""Makes a node's namespaces and its link to the machine, talks to its supervisor, and runs commands in it.

The namespaces have no name and no file: they last exactly as long as the supervisor, and with it goes the link. What
happens inside is `inside` and `supervisor`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from tools.cluster import cgroups, node, programs
from tools.cluster.commands import find, run
from tools.cluster.ending import wait_gone
from tools.cluster.instance import Instance
from tools.cluster.privilege import ELSEWHERE
from tools.errors import ToolError
from tools.paths import ROOT

_NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--propagation=private")
_STOP_SECONDS = 15.0


class Started:
    """A node that was just started, and what its supervisor tells."""

    def __init__(self, instance: Instance, told: IO[bytes]) -> None:
        self._instance = instance
        self._told = told

    def events(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the supervisor tells, until the caller has heard enough; raises ToolError at its end or a deadline."""
        deadline = time.monotonic() + seconds
        os.set_blocking(self._told.fileno(), False)
        waiting = b""
        while True:
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                event = json.loads(line)
                if "failed" in event:
                    raise ToolError(f"the embedded cluster cannot start: {event['failed']}")
                yield event
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._told], [], [], left)[0]:
                raise ToolError(f"the embedded cluster is not ready after {seconds:.0f} s. {tail(self._instance)}")
            more = os.read(self._told.fileno(), 65536)
            if not more:
                raise ToolError(f"the embedded cluster's supervisor ended. {tail(self._instance)}\n{ELSEWHERE}")
            waiting += more

    def close(self) -> None:
        """Listen no longer; the supervisor goes on."""
        self._told.close()


def tail(instance: Instance, name: str = "supervisor") -> str:
    """Where the logs are, and how one of them ends."""
    log = instance.logs / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.is_file() else []
    return "\n".join([f"Logs are in {instance.logs}; the one of {name} ends with:", *(line[:300] for line in lines)])


def start(described: node.Node) -> Started:
    """Start a node's supervisor in new namespaces and connect it; returns while the components are starting."""
    instance = described.instance
    for folder in (instance.run, instance.logs, instance.data):
        folder.mkdir(parents=True, exist_ok=True)
    instance.data.chmod(0o700)
    description = instance.run / "node.json"
    node.write(described, description)
    cgroups.create(instance.name)
    supervisor = [sys.executable, "-m", "tools.cluster.supervisor", str(description)]
    command = [find("setsid"), "--fork", find("unshare"), *_NAMESPACES, *supervisor]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LANG", "RELEASE_LOCAL") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "HOME": "/",
    }
    tell, told = os.pipe()
    with (instance.logs / "supervisor.log").open("ab") as log:
        launcher = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=tell,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    os.close(tell)
    started = Started(instance, cast("IO[bytes]", launcher.stdout))
    try:
        launcher.wait()
        pid = next(event["pid"] for event in started.events(60) if "pid" in event)
        found = node.process(pid)
        if found is None:
            raise ToolError(f"the embedded cluster's supervisor ended. {tail(instance)}")
        node.remember(found, instance.process_file)
        _connect(instance, pid)
        os.write(told, b"go\n")
    except BaseException:
        # without the line it ends by itself, and takes the namespaces with it
        started.close()
        raise
    finally:
        os.close(told)
    return started


def stop(instance: Instance) -> None:
    """End a node in order, or at once when it does not within 15 s; returns when every process of it is gone."""
    process = node.remembered(instance.process_file)
    if process is not None and process.alive():
        os.kill(process.pid, signal.SIGTERM)
        if wait_gone([process.pid], _STOP_SECONDS):
            os.kill(process.pid, signal.SIGKILL)
            wait_gone([process.pid], _STOP_SECONDS)
    instance.process_file.unlink(missing_ok=True)


def running(instance: Instance) -> int | None:
    """The supervisor's process on this machine, or None when the node does not run."""
    process = node.remembered(instance.process_file)
    return process.pid if process is not None and process.alive() else None


def command_inside(instance: Instance, arguments: Sequence[str]) -> list[str]:
    """The command line that runs `arguments` in the node's namespaces with the node's programs on PATH."""
    pid = running(instance)
    if pid is None:
        raise ToolError("the embedded cluster does not run: start it with `python -m tools.cluster up`.")
    system = node.read(instance.run / "node.json").system
    variables = [f"{name}={value}" for name, value in programs.environment(instance, system).items()]
    return [find("nsenter"), f"--target={pid}", "--mount", "--net", "--pid", "--", "env", *variables, *arguments]


def run_inside(instance: Instance, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> str:
    """Run a command in the node and give what it printed; raises ToolError with its own words when it fails."""
    done = subprocess.run(
        command_inside(instance, arguments),
        stdin=stdin if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ToolError(f"`{' '.join(arguments[:4])}` failed in the embedded cluster: {done.stderr.strip()}")
    return done.stdout


def _connect(instance: Instance, pid: int) -> None:
    prefix = instance.subnet.prefixlen
    link = instance.interface
    for command in (
        ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid)],
        ["address", "add", f"{instance.host_address}/{prefix}", "dev", link],
        ["link", "set", link, "up"],
    ):
        run("ip", *command)
