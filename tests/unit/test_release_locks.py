"""Who holds a stack's lock: real processes, real lock files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from release.cli import locks
from release.errors import ReleaseError


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, alive until the test has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def write(backend: Path, pid: int, *, host: str | None = None, since: datetime | None = None, name: str = "a") -> Path:
    folder = backend / ".pulumi" / "locks" / "organization" / "release" / "staging"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    moment = (since or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
    content = {"pid": pid, "username": "ada", "hostname": host or socket.gethostname(), "timestamp": moment}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def find(backend: Path) -> list[locks.Lock]:
    return locks.find(f"file://{backend}", "release", "staging")


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_live_holder_is_named_and_its_lock_stays(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    file = write(tmp_path, other.pid, since=datetime(2099, 3, 1, 12, 0, 7, tzinfo=UTC))
    found = find(tmp_path)
    assert locks.clear_dead(found) == []
    assert file.exists()
    with pytest.raises(ReleaseError) as caught:
        locks.refuse_held(found, "staging")
    assert str(caught.value) == (
        f"staging is being updated by ada on {socket.gethostname()} (pid {other.pid}, since 2099-03-01 12:00:07 UTC). "
        "Wait until it has ended (`release status staging` shows how far it is), or stop it with Ctrl-C where it runs, "
        f"or `kill -INT {other.pid}`. Never with `pulumi cancel`: that removes the lock, and the update runs on."
    )


def test_only_the_lock_of_a_dead_process_is_removed(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    gone = write(tmp_path, dead_pid(), name="gone")
    held = write(tmp_path, other.pid, name="held")
    assert [lock.file for lock in locks.clear_dead(find(tmp_path))] == [gone]
    assert (gone.exists(), held.exists()) == (False, True)


def test_a_process_that_got_the_number_later_is_not_the_holder(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    file = write(tmp_path, other.pid, since=datetime.now(UTC) - timedelta(minutes=1))
    assert [lock.file for lock in locks.clear_dead(find(tmp_path))] == [file]


def test_a_process_of_somebody_else_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, os.getpid())

    def refused(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not find(tmp_path)[0].is_dead()


def test_a_holder_on_another_machine_is_never_taken_for_dead(tmp_path: Path) -> None:
    file = write(tmp_path, dead_pid(), host="elsewhere")
    found = find(tmp_path)
    assert locks.clear_dead(found) == []
    assert file.exists()
    with pytest.raises(
        ReleaseError, match=r"look on elsewhere\. Only if that process is dead, run `pulumi cancel -s stag"
    ):
        locks.refuse_held(found, "staging")


def test_other_stacks_other_backends_and_unreadable_files_hold_nothing(
    tmp_path: Path, other: subprocess.Popen[bytes]
) -> None:
    file = write(tmp_path, other.pid)
    file.with_name("half.json").write_text('{"pid": 1', encoding="utf-8")
    file.with_name("a.json.attrs").write_text("{}", encoding="utf-8")
    assert len(find(tmp_path)) == 1
    assert locks.find(f"file://{tmp_path}", "release", "prod") == []
    assert locks.find("s3://bucket", "release", "staging") == []
    assert len(locks.find(f"file://{tmp_path}?no_tmp_dir=true", "release", "staging")) == 1
    locks.refuse_held([], "staging")
