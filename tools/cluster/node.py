"""The description of a node that `outside` hands to its supervisor, and which process of the machine that is."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tools.cluster.instance import Instance


@dataclass(frozen=True, kw_only=True)
class Node:
    """`system` is where the Debian packages were unpacked; `visible` are further folders that the node must see."""

    instance: Instance
    system: Path
    visible: tuple[Path, ...]


def write(node: Node, file: Path) -> None:
    """Write a node's description."""
    document = {
        "folder": str(node.instance.folder),
        "subnet": str(node.instance.subnet),
        "system": str(node.system),
        "visible": [str(path) for path in node.visible],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


def read(file: Path) -> Node:
    """Read what `write` wrote."""
    document = json.loads(file.read_text())
    return Node(
        instance=Instance(folder=Path(document["folder"]), subnet=IPv4Network(document["subnet"])),
        system=Path(document["system"]),
        visible=tuple(Path(path) for path in document["visible"]),
    )


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process of this machine that cannot be taken for a later one with the same number, not even after a reboot.

    `started` is in clock ticks since boot, `boot` the kernel's random id of this boot.
    """

    pid: int
    started: int
    boot: str

    def alive(self) -> bool:
        """Whether exactly this process is still there and not just waiting to be collected."""
        return self.boot == _boot() and _stat(self.pid) == (self.started, True)


def process(pid: int) -> Process | None:
    """The process that has this number now."""
    found = _stat(pid)
    return Process(pid=pid, started=found[0], boot=_boot()) if found else None


def remember(one: Process, file: Path) -> None:
    """Write down a process."""
    file.write_text(json.dumps({"pid": one.pid, "started": one.started, "boot": one.boot}) + "\n")


def remembered(file: Path) -> Process | None:
    """The process written down, whether it lives or not; None when there is no file or only part of one."""
    try:
        document = json.loads(file.read_text())
        return Process(pid=document["pid"], started=document["started"], boot=document["boot"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def now() -> str:
    """This moment in UTC, ISO 8601 with seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def inner_pids(namespace_of: int) -> dict[int, int]:
    """Numbers inside the pid namespace of a process's children, as what they are on the machine outside."""
    try:
        wanted = Path(f"/proc/{namespace_of}/ns/pid").readlink()
    except OSError:
        return {}
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "ns/pid").readlink() == wanted:
                numbers = next(line for line in (entry / "status").read_text().splitlines() if line.startswith("NSpid"))
                found[int(numbers.split()[-1])] = int(entry.name)
        except (OSError, StopIteration):
            continue  # ended while we looked
    return found


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[int, bool] | None:
    """Start time, and whether it runs rather than being a zombie."""
    try:
        # the name in the second field may hold anything, spaces and brackets too
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19]), fields[0] not in "ZX"
