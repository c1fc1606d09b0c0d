"""How a node ends: no new containers, the containers' own programs, the components in reverse order.

Bounded to about five seconds; what has not ended by then is killed with the namespace, which loses nothing that was
written.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from tools.cluster.components import Component
from tools.cluster.instance import Instance

_CONTAINERS_SECONDS = 3.0
_ASK_SECONDS = 2.0

log = logging.getLogger("supervisor")


class Running(Protocol):
    """A component with its process, when it has one."""

    component: Component
    pid: int | None


def end(instance: Instance, environment: dict[str, str], running: Sequence[Running]) -> None:
    """End the containers and then the components."""
    by_name = {one.component.name: one for one in running}
    _stop([by_name["kubelet"]])
    _stop_containers(str(instance.programs / "ctr"), environment)
    _stop([by_name[name] for name in ("kube-proxy", "kube-scheduler", "kube-controller-manager", "registry")])
    _stop([by_name["kube-apiserver"], by_name["containerd"]])
    _stop([by_name["etcd"]])


def _stop(running: Iterable[Running]) -> None:
    alive = [(one, one.pid, time.monotonic() + one.component.stop_seconds) for one in running if one.pid is not None]
    for _, pid, _ in alive:
        _signal(pid, signal.SIGTERM)
    for one, pid, deadline in alive:
        if not wait_gone([pid], deadline - time.monotonic()):
            log.info("%s ended", one.component.name)
        else:
            log.warning("%s did not end in time: killed", one.component.name)
            _signal(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        one.pid = None


def _stop_containers(ctr: str, environment: dict[str, str]) -> None:
    tasks = task_pids(_ask([[ctr, "tasks", "list"]], environment)[0])
    names = sorted(tasks)
    described = _ask([[ctr, "containers", "info", name] for name in names], environment)
    pids = []
    for name, description in zip(names, described, strict=True):
        number = stop_signal(description)
        # a pod's first container holds its network: it goes with the namespace, after those that still use it
        if number is not None:
            _signal(tasks[name], number)
            pids.append(tasks[name])
    left = wait_gone(pids, _CONTAINERS_SECONDS)
    for pid in left:
        _signal(pid, signal.SIGKILL)
    log.info("%d of %d containers ended by themselves", len(pids) - len(left), len(pids))


def stop_signal(description: str) -> signal.Signals | None:
    """What tells a container to end, from what `ctr containers info` prints; None for a pod's first container.

    An image may ask for another signal than SIGTERM: PostgreSQL's does, because it waits for its clients on SIGTERM.
    """
    try:
        found = json.loads(description)
        if found["Labels"]["io.cri-containerd.kind"] == "sandbox":
            return None
        metadata = json.loads(base64.b64decode(found["Extensions"]["io.cri-containerd.container.metadata"]["value"]))
        wanted = metadata["Metadata"]["StopSignal"]
        return signal.Signals(int(wanted)) if wanted.isdigit() else signal.Signals[wanted]
    except (ValueError, LookupError, AttributeError, TypeError):
        # the format is containerd's own and may change
        return signal.SIGTERM


def task_pids(listing: str) -> dict[str, int]:
    """Container and process of every running task in what `ctr tasks list` prints."""
    rows = [line.split() for line in listing.splitlines()[1:]]
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[2] == "RUNNING"}


def wait_gone(pids: Iterable[int], seconds: float) -> list[int]:
    """Wait for processes to end, related or not; gives those that are there after `seconds`."""
    handles: dict[int, int] = {}
    for pid in pids:
        try:
            handles[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    deadline = time.monotonic() + seconds
    try:
        while handles and (left := deadline - time.monotonic()) > 0:
            for handle, _ in poll.poll(left * 1000):
                poll.unregister(handle)
                os.close(handle)
                del handles[handle]
        return list(handles.values())
    finally:
        for handle in handles:
            os.close(handle)


def _ask(commands: Sequence[Sequence[str]], environment: dict[str, str]) -> list[str]:
    """Run commands side by side and give what each printed, nothing for one that failed or took too long."""
    asked = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for command in commands
    ]
    deadline = time.monotonic() + _ASK_SECONDS
    answers = []
    for process in asked:
        try:
            answers.append(process.communicate(timeout=max(0.0, deadline - time.monotonic()))[0])
        except subprocess.TimeoutExpired:
            log.warning("containerd does not answer: some containers end with the namespace")
            process.kill()
            process.communicate()
            answers.append("")
    return answers


def _signal(pid: int, number: signal.Signals) -> None:
    # gone already is what was wanted
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
