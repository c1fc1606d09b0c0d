"""How an instance is: from its supervisor's state, the processes of this machine and the cluster's own word."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from lightkube.core.exceptions import ApiError

from tools.cluster import bootstrap, node, outside
from tools.cluster import instance as instances
from tools.cluster.components import NAMES
from tools.cluster.instance import Instance


@dataclass(frozen=True, kw_only=True)
class ComponentStatus:
    """One component: `pid` on this machine, `memory` resident bytes, `since` UTC time of its start.

    Only root sees which processes of the machine are the node's: for others `pid` is None and `memory` 0.
    """

    name: str
    pid: int | None
    ready: bool
    restarts: int
    since: str
    last_exit: str
    memory: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """How an instance is; `memory` sums what every process of the node has resident, pods included, in bytes."""

    name: str
    up: bool
    supervisor: int | None
    components: tuple[ComponentStatus, ...]
    memory: int


def is_up() -> bool:
    """Whether the cluster runs, was brought up completely, and every component is ready now."""
    instance = instances.load()
    if outside.running(instance) is None or not instance.complete_file.is_file() or unready(instance):
        return False
    try:
        return bootstrap.node_ready(bootstrap.client(instance), dt.datetime.min.replace(tzinfo=dt.UTC))
    except (ApiError, httpx2.HTTPError):
        return False


def unready(instance: Instance) -> list[str]:
    """The components that are not ready now, by the state of a supervisor that runs."""
    state = read(instance)
    return [name for name in NAMES if not state.get(name, {}).get("ready")]


def read(instance: Instance) -> dict[str, dict[str, Any]]:
    """The supervisor's last state by component; empty when it has written none."""
    try:
        return dict(json.loads(instance.state_file.read_text()))
    except FileNotFoundError:
        return {}


def status() -> Status:
    """How the instance is now, also when it does not run."""
    instance = instances.load()
    supervisor = outside.running(instance)
    numbers = node.inner_pids(supervisor) if supervisor else {}
    state = read(instance) if supervisor else {}
    return Status(
        name=instance.name,
        up=is_up(),
        supervisor=supervisor,
        components=tuple(_component(name, state.get(name, {}), numbers) for name in NAMES),
        memory=sum(map(_resident, numbers.values())),
    )


def _component(name: str, life: dict[str, Any], numbers: dict[int, int]) -> ComponentStatus:
    pid = numbers.get(life.get("pid") or 0)
    return ComponentStatus(
        name=name,
        pid=pid,
        ready=bool(life.get("ready")),
        restarts=life.get("restarts", 0),
        since=life.get("since", ""),
        last_exit=life.get("last_exit", ""),
        memory=_resident(pid) if pid else 0,
    )


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)
