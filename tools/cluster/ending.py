"""How a node ends: no new containers, the containers' own programs, the components in reverse order.

Bounded to about five seconds; what has not ended by then is killed with the namespace, which loses nothing that was
written.
"""

from __future__ import annotations

import contextlib
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

_CONTAINERS_SECONDS = 3.5
_ASK_SECONDS = 2.0
_STOP_SIGNAL_LABEL = "io.containerd.image.config.stop-signal"
# apart from the default: what images of databases and web servers ask for
_STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)

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
    tasks = task_pids(_ask([ctr, "tasks", "list"], environment))
    # a pod's first container holds its network: it goes with the namespace, after those that still use it
    holders = set(
        _ask([ctr, "containers", "list", "-q", _has("io.cri-containerd.kind", "sandbox")], environment).split()
    )
    special = {
        name: number
        for number in _STOP_SIGNALS
        for name in _ask([ctr, "containers", "list", "-q", _has(_STOP_SIGNAL_LABEL, number.name)], environment).split()
    }
    pids = []
    for name, pid in tasks.items():
        if name not in holders:
            _signal(pid, special.get(name, signal.SIGTERM))
            pids.append(pid)
    left = wait_gone(pids, _CONTAINERS_SECONDS)
    for pid in left:
        _signal(pid, signal.SIGKILL)
    log.info("%d of %d containers ended by themselves", len(pids) - len(left), len(pids))


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


def _has(label: str, value: str) -> str:
    return f'labels."{label}"=={value}'


def _ask(command: list[str], environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        log.warning("containerd does not answer: the containers end with the namespace")
        return ""
    return done.stdout


def _signal(pid: int, number: signal.Signals) -> None:
    # gone already is what was wanted
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
