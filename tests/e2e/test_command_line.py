"""`release up` on the real engine: what it prints, and what it leaves behind when it is stopped in any way.

The engine deploys a program of two resources whose work is only time, kept in a file backend of the test's own; what
the real program deploys is in `test_staging`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.command_line import REPOSITORY, SECRET, api, environ, keep_record, project, run
from tests.e2e.processes import end_session
from tests.unit.kubernetes_api import KubernetesApi
from tools import paths

__all__ = ["api", "environ", "project"]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The test's stack: its git-ignored configuration, changed by `plan`, and its state."""

    copy: Path
    tracked: Path

    def plan(self, text: str) -> None:
        document = yaml.safe_load(self.copy.read_text(encoding="utf-8"))
        document["config"]["release:plan"] = text
        self.copy.write_text(yaml.safe_dump(document), encoding="utf-8")

    def pending(self) -> list[str]:
        """Names of the resources whose operation the state notes as interrupted."""
        state = json.loads((paths.STATE / ".pulumi/stacks/release/staging.json").read_text(encoding="utf-8"))
        found = state["checkpoint"]["latest"].get("pending_operations") or []
        return [item["resource"]["urn"].rpartition("::")[2] for item in found]


@pytest.fixture
def stack(project: Path, api: KubernetesApi, toolchain_bin: Path) -> Stack:
    """An environment on the real engine, its configuration a copy, not created yet."""
    os.environ["PATH"] = f"{toolchain_bin}{os.pathsep}{os.environ['PATH']}"
    paths.STACKS.mkdir()
    copy = paths.stack_copy("staging")
    copy.write_text("config:\n  release:plan: number=1\n", encoding="utf-8")
    return Stack(copy=copy, tracked=project / "Pulumi.staging.yaml")


def test_up_deploys_says_what_it_wrote_and_what_is_next_and_then_has_nothing_to_change(
    stack: Stack, project: Path
) -> None:
    blocked = run("up", "staging", "1.0.0", "--preview")
    assert (blocked.exit_code, blocked.stdout) == (1, "")
    assert "there is no stack staging to preview yet" in blocked.stderr

    done = run("up", "staging", "1.0.0")
    assert done.exit_code == 0, done.output
    folder = os.path.relpath(paths.RELEASES / "1.0.0", project)
    assert f"{stack.copy}: release:folder is now {folder}" in done.stderr
    assert "s release from " + folder in done.stderr
    assert "s migrate-1 (Resource): creating" in done.stderr
    assert "s migrate-1 (Resource): created in " in done.stderr
    assert done.stdout.startswith("staging runs 1.0.0: released in ")
    assert "make up ENV=staging VERSION=1.1.0   the next release" in done.stdout
    assert stack.tracked.read_text(encoding="utf-8") == "config: {}\n"
    assert "encryptionsalt" in stack.copy.read_text(encoding="utf-8")

    again = run("up", "staging", "1.0.0")
    assert again.exit_code == 0
    assert again.stdout.startswith("staging runs 1.0.0: nothing to change\n")
    assert "release:folder is now" not in again.stderr
    assert "(Resource)" not in again.stderr

    stack.plan("number=2")
    before = stack.copy.read_text(encoding="utf-8")
    shown = run("up", "staging", "1.1.0", "--preview")
    assert shown.exit_code == 0, shown.output
    assert "  + migrate-2 (Resource)" in shown.stderr
    assert f"release from {os.path.relpath(paths.RELEASES / '1.1.0', project)}" in shown.stderr
    assert shown.stdout.startswith("preview of 1.1.0 in staging (")
    assert stack.copy.read_text(encoding="utf-8") == before

    # The stack's state knows a record that the cluster does not have.
    checked = run("history", "staging", "--verify")
    assert checked.exit_code == 1
    assert "missing-tail: the stack's state knows record 1, but the newest one stored is 0" in checked.stdout
    assert SECRET not in blocked.output + done.output + again.output + shown.output + checked.output


def test_a_failed_step_ends_with_1_its_reason_and_a_closed_record_and_an_earlier_error_closes_none(
    stack: Stack, api: KubernetesApi
) -> None:
    keep_record(api, 1)
    stack.plan("number=1,stop=1")
    stopped = run("up", "staging", "1.0.0")
    assert stopped.exit_code == 1
    assert "the configuration is wrong" in stopped.stderr
    record = api.objects[("configmaps", "staging-records", "record-000001")]
    assert record["metadata"]["labels"]["release.energy/status"] == "open"

    stack.plan("number=1,fails=1,seconds=0.1")
    # Registered before the program stopped, so only what is new can fail now.
    keep_record(api, 3)
    stack.plan("number=3,fails=1,seconds=0.1")
    failed = run("up", "staging", "1.0.0")
    assert failed.exit_code == 1
    assert failed.stdout == ""
    assert "s migrate-3 (Resource): FAILED after " in failed.stderr
    assert "no such column" in failed.stderr
    assert "record 3 is closed as failed" in failed.stderr
    assert "Mend the cause, then `release up staging 1.0.0`" in failed.stderr
    closed = api.objects[("configmaps", "staging-records", "record-000003")]
    assert "no such column" in json.loads(closed["data"]["record.json"])["reason"]
    assert record["metadata"]["labels"]["release.energy/status"] == "open"
    assert SECRET not in stopped.output + failed.output


class Running:
    """`release up` as a process of its own, watched by what it writes to standard error."""

    def __init__(self, project: Path) -> None:
        code = (
            "import sys, pathlib; from tools import paths; paths.ROOT = pathlib.Path(sys.argv.pop(1)); "
            "from release.cli import main; main()"
        )
        environ = {**os.environ, "RELEASE_LOCAL": str(paths.LOCAL), "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(project), "up", "staging", "1.0.0"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.text = ""
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.text += line
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, text: str) -> None:
        with self._news:
            self._news.wait_for(lambda: text in self.text or self._ended, timeout=60)
            assert text in self.text

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join()
        return code


def holder() -> int:
    """The process that holds the stack's lock."""
    folder = paths.STATE / ".pulumi/locks/organization/release/staging"
    return int(json.loads(next(folder.glob("*.json")).read_text(encoding="utf-8"))["pid"])


def test_interrupted_it_stops_once_and_beside_another_it_does_not_start(stack: Stack, project: Path) -> None:
    stack.plan("number=1,seconds=3")
    running = Running(project)
    running.wait_for("migrate-1 (Resource): creating")
    refused = run("up", "staging", "1.0.0")
    assert refused.exit_code == 1
    assert (
        f"staging is being updated by root on {socket.gethostname()} (pid {holder()}, since"
        in refused.stderr.replace(os.environ.get("USER", "root"), "root")
    )
    assert "Never with `pulumi cancel`" in refused.stderr
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping the update")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("still stopping; the engine was told once")
    assert running.wait() == 1
    assert "The Jobs in the cluster go on and the record stays open" in running.text
    assert "`release up staging 1.0.0` goes on with them" in running.text
    # It ended in good order: nothing is left that the next one would have to clear.
    assert stack.pending() == []


def test_killed_during_a_step_it_is_adopted_by_the_next_which_leaves_no_trace_of_it(
    stack: Stack, project: Path
) -> None:
    stack.plan("number=1,seconds=60")
    running = Running(project)
    running.wait_for("migrate-1 (Resource): creating")
    running.wait_for("backup-1 (Resource): created")
    # The engine announces an operation before it notes it in the state; killed in between, there is nothing to adopt.
    ends = time.monotonic() + 30
    while "migrate-1" not in stack.pending():
        assert time.monotonic() < ends, "the engine never noted what it began"
        time.sleep(0.05)
    engine = holder()
    os.kill(engine, signal.SIGKILL)
    end_session(engine)
    assert running.wait() == 1
    assert "the engine was killed (SIGKILL); `release up staging 1.0.0` goes on where it stopped" in running.text
    assert "migrate-1" in stack.pending()

    stack.plan("number=1,seconds=0")
    began = time.monotonic()
    resumed = run("up", "staging", "1.0.0")
    assert resumed.exit_code == 0, resumed.output
    assert time.monotonic() - began < 60
    assert f"(pid {engine}, since " in resumed.stderr
    assert "that process is dead; its update goes on here" in resumed.stderr
    assert "an earlier update was killed; what it had begun is adopted" in resumed.stderr
    assert stack.pending() == []
