"""Locks between processes that say who holds them. What is guarded is left to the callers.

POSIX record locks, not flock: they end with the process that took them, and a process forked meanwhile (the embedded
cluster's supervisor) does not inherit them.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools.errors import ToolError
from tools.progress import duration, say

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock: `since` is UTC in ISO 8601, `command` what was typed."""

    pid: int
    user: str
    host: str
    since: str
    command: str

    def text(self, now: datetime) -> str:
        """The holder in one line, with how long it has held the lock at `now`."""
        began = datetime.strptime(self.since, _TIME).replace(tzinfo=UTC)
        ago = duration(max(0.0, (now - began).total_seconds()))
        return f"pid {self.pid} of {self.user} on {self.host}, since {self.since} ({ago} ago): {self.command}"


@contextmanager
def hold(path: Path, *, command: str | None = None, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` for as long as the block runs; not reentrant within one process.

    `command` is what others are told (this process's own command line by default). When another process holds it,
    raises ToolError that names the holder, or waits for it when `wait` is set.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError as error:
        raise ToolError(
            f"{path} cannot be written by {getpass.getuser()}: it was probably made with sudo. Go on with sudo, or "
            f"take it over: sudo chown {os.getuid()}:{os.getgid()} {path.parent} {path}"
        ) from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _describe(descriptor)
            if not wait:
                raise ToolError(f"{path} is held by {holder}. Wait until that has ended, then try again.") from None
            say(f"waiting for {holder}")
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        _write(descriptor, _this_process(command))
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _this_process(command: str | None) -> Holder:
    return Holder(
        pid=os.getpid(),
        user=getpass.getuser(),
        host=socket.gethostname(),
        since=datetime.now(UTC).strftime(_TIME),
        command=command or shlex.join(sys.orig_argv),
    )


def _write(descriptor: int, holder: Holder) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _describe(descriptor: int) -> str:
    try:
        return Holder(**json.loads(os.pread(descriptor, 64 * 1024, 0))).text(datetime.now(UTC))
    except (ValueError, TypeError):
        # The holder took the lock an instant ago and has not written its details yet.
        return "another process that has just started"
