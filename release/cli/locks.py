"""Who holds a stack's lock, and whether that process still lives.

The file backend keeps one file a lock with pid, user, host and time. `pulumi cancel` would delete the lock of a live
update as well, which then runs on beside the next one: so nothing is removed here but the file of a process that is
proven dead, by its own name. Other backends say themselves who holds a lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from release.errors import ReleaseError

# Clocks of the kernel's start times and of the lock are read apart.
_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Lock:
    """One lock: the file, and the process that wrote it at `since` (UTC)."""

    file: Path
    pid: int
    user: str
    host: str
    since: datetime

    def text(self) -> str:
        """The holder in words."""
        return f"{self.user} on {self.host} (pid {self.pid}, since {self.since:%Y-%m-%d %H:%M:%S} UTC)"

    def is_here(self) -> bool:
        """Whether the holder is, or was, a process of this machine."""
        return self.host == socket.gethostname()

    def is_dead(self) -> bool:
        """Whether the holder is known to be gone; False where it cannot be known."""
        if not self.is_here():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        started = _started(self.pid)
        # A process younger than the lock got the same number later.
        return started is not None and started > self.since.timestamp() + _TOLERANCE_SECONDS


def find(backend: str, project: str, stack: str) -> list[Lock]:
    """The locks of a stack in a file backend (`file://…`), oldest first; [] for every other backend."""
    if not backend.startswith("file://"):
        return []
    root = Path(backend.removeprefix("file://").partition("?")[0]).expanduser()
    found = []
    for file in (root / ".pulumi" / "locks" / "organization" / project / stack).glob("*.json"):
        # A lock may end while it is read, and one that was begun but not written names nobody.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append(
                Lock(
                    file=file,
                    pid=int(content["pid"]),
                    user=str(content["username"]),
                    host=str(content["hostname"]),
                    since=_time(str(content["timestamp"])),
                )
            )
    return sorted(found, key=lambda lock: lock.since)


def clear_dead(locks: Sequence[Lock]) -> list[Lock]:
    """Remove the locks whose holders are known to be dead, each by its own file, and return those."""
    dead = [lock for lock in locks if lock.is_dead()]
    for lock in dead:
        lock.file.unlink(missing_ok=True)
    return dead


def refuse_held(locks: Sequence[Lock], environment: str) -> None:
    """Raise ReleaseError that says who is at it, for the first of `locks`; nothing when there is none."""
    if not locks:
        return
    holder = locks[0]
    if holder.is_here():
        advice = (
            f"Wait until it has ended (`release status {environment}` shows how far it is), or stop it with Ctrl-C "
            f"where it runs, or `kill -INT {holder.pid}`. Never with `pulumi cancel`: that removes the lock, and the "
            "update runs on."
        )
    else:
        advice = (
            f"Whether it still runs cannot be seen from here: look on {holder.host}. Only if that process is dead, run "
            f"`pulumi cancel -s {environment}`, which removes the lock and stops nothing."
        )
    raise ReleaseError(f"{environment} is being updated by {holder.text()}. {advice}")


def _time(text: str) -> datetime:
    # Nanoseconds are more digits than Python takes.
    whole, _, _ = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC)


def _started(pid: int) -> float | None:
    """When a process started (seconds since the epoch), None where the kernel does not say."""
    try:
        # The command's name stands in brackets and may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines() if "btime" in line)
        return int(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration, ValueError, IndexError):
        return None
