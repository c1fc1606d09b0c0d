"""What of an instance is on the machine outside of its folder, and how it is removed, also after a crash.

A node that ends takes its processes, mounts, links and rules with it, because all are in its namespaces; what stays is
its cgroup. Everything is looked for all the same: a clean-up that trusts itself proves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import astuple, dataclass
from pathlib import Path

from tools.cluster import cgroups
from tools.cluster.commands import run
from tools.cluster.ending import wait_gone
from tools.cluster.instance import Instance
from tools.errors import ToolError

_KILL_SECONDS = 10.0
_LINK_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What was found, each as a person reads it."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    namespaces: tuple[str, ...]
    cgroups: tuple[str, ...]
    rules: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(astuple(self))


def leftovers(instance: Instance) -> Leftovers:
    """Everything of the instance that the machine holds outside of its folder, while it runs or after."""
    return Leftovers(
        processes=tuple(f"{pid} {_command(pid)}" for pid in sorted(_processes(instance))),
        mounts=tuple(_mounts(instance)),
        interfaces=tuple(name for name in (instance.interface,) if Path("/sys/class/net", name).exists()),
        namespaces=tuple(str(path) for path in Path("/run/netns").glob(f"*{instance.id}*")),
        cgroups=tuple(map(str, cgroups.found(instance.name))),
        rules=tuple(_rules(instance)),
    )


def remove(instance: Instance) -> None:
    """Remove all of it; raises ToolError naming what cannot be removed. Data in the folder stays."""
    pids = _processes(instance)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_gone(pids, _KILL_SECONDS)
    for mount in reversed(_mounts(instance)):
        run("umount", "--lazy", mount)
    _remove_link(instance.interface)
    cgroups.remove(instance.name)
    shutil.rmtree(instance.run, ignore_errors=True)
    left = leftovers(instance)
    if left:
        raise ToolError(f"this of the embedded cluster {instance.name} cannot be removed: {left}")


def _remove_link(name: str) -> None:
    """The kernel takes the link away with the node's network namespace, but some time after its last process."""
    link = Path("/sys/class/net", name)
    deadline = time.monotonic() + _LINK_SECONDS
    while link.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if link.exists():
        run("ip", "link", "delete", name)


def _processes(instance: Instance) -> set[int]:
    """Whatever is in the cgroup, and whatever was started for it and never got there."""
    found = cgroups.processes(instance.name)
    description = str(instance.run / "node.json").encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if description in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(ended)"


def _mounts(instance: Instance) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # mountinfo writes a space as \040
    inside = str(instance.folder).replace(" ", "\\040")
    return [point.replace("\\040", " ") for point in points if point == inside or point.startswith(f"{inside}/")]


def _rules(instance: Instance) -> list[str]:
    """Packet filter rules of the machine that name the link; none is ever made, and this looks whether that holds."""
    found = []
    for command in (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found += [line.strip() for line in done.stdout.splitlines() if instance.interface in line]
    rules = json.loads(run("ip", "-json", "rule", "show") or "[]")
    found += [str(rule) for rule in rules if instance.interface in rule.values()]
    return found
