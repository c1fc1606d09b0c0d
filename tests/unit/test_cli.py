"""The command line: codes and messages through its own runner and as a process; `up` on the real engine.

The engine deploys a program of two resources whose work is only time, kept in a file backend of the test's own; what
the real program deploys belongs to the end-to-end tests.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from release.cli import app, target
from release.errors import ReleaseError, UsageError
from release.manifest import Flags, Manifest, ReleaseType, Schema
from steps import records
from steps.records import Link, Opening
from tests.unit.kubernetes_api import KubernetesApi
from tools import paths

REPOSITORY = Path(__file__).parents[2]
TOOLCHAIN = paths.TOOLCHAIN_BIN
FLAGS = "{}"
IMAGE = "registry.example/forecast@sha256:" + "a" * 64
SECRET = "never-shown-0123456789"


@pytest.fixture
def environ() -> Iterator[None]:
    """The command line sets variables of its own process, which is the tests' here."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("PULUMI_", "KUBECONFIG"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(local: Path, tmp_path: Path, environ: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's root with the tracked files that the command line reads, and releases 1.0.0 and 1.1.0 assembled."""
    root = tmp_path / "root"
    for version in ("1.0.0", "1.1.0", "1.1.1"):
        (root / "forecast" / "releases" / version).mkdir(parents=True)
    (root / "Pulumi.yaml").write_text(yaml.safe_dump(PROJECT), encoding="utf-8")
    (root / "Pulumi.staging.yaml").write_text("config: {}\n", encoding="utf-8")
    (root / "Pulumi.prod.yaml").write_text("config: {}\n", encoding="utf-8")
    (root / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", root)
    assemble("1.0.0", ReleaseType.MAJOR)
    assemble("1.1.0", ReleaseType.MINOR)
    return root


def assemble(version: str, kind: ReleaseType) -> Path:
    folder = paths.RELEASES / version
    folder.mkdir(parents=True)
    manifest = Manifest(
        version=version,
        type=kind,
        commit="0" * 40,
        dirty=False,
        images={"forecast": IMAGE},
        schema_=Schema(revision="0001", compatible=("0001",)),
        flags=Flags(file="flags.json", sha256=hashlib.sha256(FLAGS.encode()).hexdigest()),
    )
    (folder / "release.yaml").write_text(manifest.to_yaml(), encoding="utf-8")
    (folder / "flags.json").write_text(FLAGS, encoding="utf-8")
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def api(project: Path) -> Iterator[KubernetesApi]:
    """An API in the place of the embedded cluster's."""
    paths.CLUSTER.mkdir()
    with KubernetesApi() as server:
        assert server.kubeconfig(paths.CLUSTER) == paths.KUBECONFIG
        yield server


def keep_record(api: KubernetesApi, number: int) -> None:
    opening = Opening(
        environment="staging",
        deployment=number,
        version="1.0.0",
        type="major",
        inputs="1" * 64,
        manifest_sha256=records.sha256("m"),
        images={"forecast": IMAGE},
        flags_sha256="f" * 64,
        who="ada@laptop",
    )
    before = Link(deployment=number - 1, sha256="0" * 64) if number > 1 else None
    record = records.open_record(opening, before, datetime(2026, 3, 1, 12, tzinfo=UTC))
    api.add("configmaps", records.config_map(record, "m", "staging-records"))


USAGE = [
    (["up", "staging"], "Missing argument 'VERSION'"),
    (["up", "Staging", "1.0.0"], "error: 'Staging' is no environment; write it like staging"),
    (["up", "a" * 41, "1.0.0"], "is no environment"),
    (["up", "test", "1.0.0"], "error: there is no environment 'test': no Pulumi.test.yaml; there are prod, staging"),
    (["up", "staging", "1.0"], "error: VERSION: '1.0' is no semantic version; write it like 1.4.0"),
    (["up", "staging", "../1.0.0"], "error: VERSION: '../1.0.0' is no semantic version"),
    (
        ["up", "staging", "9.9.9"],
        "error: release 9.9.9 is not assembled; assembled: 1.0.0, 1.1.0; known: 1.0.0, 1.1.0, 1.1.1; to assemble one "
        "of these, run `make up VERSION=…`",
    ),
    (["status", "test"], "there is no environment 'test'"),
    (["history", "test"], "there is no environment 'test'"),
    (["deploy"], "No such command 'deploy'"),
    (["status", "staging", "--yaml"], "No such option"),
]


@pytest.mark.parametrize(("words", "expected"), USAGE, ids=[" ".join(case[0])[:30] for case in USAGE])
def test_what_cannot_be_meant_ends_with_2_and_says_what_can(project: Path, words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_known_release_that_is_not_assembled_is_blocked_with_the_command_that_assembles_it(project: Path) -> None:
    result = run("up", "staging", "1.1.1")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: release 1.1.1 is not assembled; assembled: 1.0.0, 1.1.0; known: 1.0.0, 1.1.0, 1.1.1; assemble and "
        "release it with `make up VERSION=1.1.1`\n"
    )


def test_a_damaged_release_is_blocked_before_the_engine_starts(project: Path) -> None:
    (paths.RELEASES / "1.0.0" / "flags.json").write_text("[]", encoding="utf-8")
    result = run("up", "staging", "1.0.0")
    assert result.exit_code == 1
    assert "flags.json: flags.sha256: changed after assembling" in result.stderr
    assert not paths.STATE.exists() or list(paths.STATE.iterdir()) == []


def test_a_folder_that_holds_another_release_is_blocked(project: Path) -> None:
    (paths.RELEASES / "1.1.0").rename(paths.RELEASES / "1.1.1")
    with pytest.raises(ReleaseError, match=r"1\.1\.1 holds release 1\.1\.0, not 1\.1\.1"):
        target.find_release("1.1.1")


def test_without_an_engine_it_says_how_to_get_one(project: Path) -> None:
    os.environ["PATH"] = str(project)
    result = run("up", "staging", "1.0.0")
    assert result.exit_code == 1
    assert result.stderr == "error: there is no `pulumi` on PATH; run this in `make shell`, or `make up` first\n"


def test_the_next_version_is_the_smallest_above(project: Path) -> None:
    assert [target.next_version(version) for version in ("1.0.0", "1.1.0", "1.1.1")] == ["1.1.0", "1.1.1", None]


def test_the_git_ignored_copy_is_the_configuration_in_use_where_there_is_one(project: Path) -> None:
    assert target.find("staging").config_file == project / "Pulumi.staging.yaml"
    assert target.find("staging").tracked
    paths.STACKS.mkdir()
    copy = paths.stack_copy("staging")
    copy.write_text("config:\n  kubernetes:context: kind\n", encoding="utf-8")
    found = target.find("staging")
    assert (found.config_file, found.tracked, found.value("kubernetes:context")) == (copy, False, "kind")


def test_an_environment_may_have_nothing_but_a_copy(project: Path) -> None:
    paths.STACKS.mkdir()
    paths.stack_copy("e2e-a1").write_text("config: {}\n", encoding="utf-8")
    assert target.find("e2e-a1").config_file == paths.stack_copy("e2e-a1")
    with pytest.raises(UsageError, match="there are e2e-a1, prod, staging"):
        target.find("e2e-a2")


def test_a_chosen_configuration_that_is_missing_is_refused(project: Path) -> None:
    os.environ["PULUMI_OPTION_CONFIG_FILE"] = "nowhere.yaml"
    with pytest.raises(ReleaseError, match=r"nowhere\.yaml does not exist \(PULUMI_OPTION_CONFIG_FILE\)"):
        target.find("staging")


def test_status_and_history_of_an_environment_that_was_never_deployed_to(api: KubernetesApi) -> None:
    assert json.loads(run("history", "staging", "--json").stdout)["records"] == []
    assert run("history", "staging").stdout == "staging: no deployment yet\n"
    document = json.loads(run("status", "staging", "--json").stdout)
    assert (document["version"], document["pods"]["desired"], document["url"]) == (None, 0, None)
    assert run("status", "staging").stdout.startswith("staging: no release has been healthy here yet\n")


def test_status_says_how_to_go_on_with_what_is_under_way(api: KubernetesApi) -> None:
    keep_record(api, 1)
    text = run("status", "staging").stdout
    assert "under way: deployment 1 (1.0.0), opened 2026-03-01T12:00:00Z by ada@laptop" in text
    assert "it goes on with: release up staging 1.0.0" in text
    assert "1   1.0.0    open    2026-03-01T12:00:00Z" in run("history", "staging").stdout


def test_a_cluster_that_is_not_there_ends_with_1_and_what_mends_it(project: Path) -> None:
    for command in ("status", "history"):
        result = run(command, "staging")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "kubeconfig not found; looked in" in result.stderr
        assert "start the embedded cluster with `make up`" in result.stderr


def test_it_runs_as_a_process_of_its_own(local: Path) -> None:
    environ = {**os.environ, "RELEASE_LOCAL": str(local)}

    def process(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "release.cli", *words]
        return subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)

    version = process("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert f'version = "{version.stdout.strip()}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    unknown = process("up", "nowhere", "1.0.0")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: there is no environment 'nowhere'")
    missing = process("status", "staging")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no access to a Kubernetes cluster")


PROJECT: Mapping[str, Any] = {"name": "release", "runtime": "python", "description": "a test's program"}

PROGRAM = """
import time

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class Worker(ResourceProvider):
    def create(self, props):
        import time

        end = time.monotonic() + float(props["seconds"])
        while time.monotonic() < end:
            time.sleep(0.05)
        if props["fails"]:
            raise Exception("no such column")
        return CreateResult(id_="done", outs=props)


class Job(Resource):
    def __init__(self, name, seconds, fails):
        labels = {"release.energy/deployment": plan["number"]}
        props = {"metadata": {"labels": labels}, "seconds": seconds, "fails": fails, "secret": secret}
        super().__init__(Worker(), f"{name}-{plan['number']}", props)


config = pulumi.Config("release")
secret = pulumi.Output.secret("never-shown-0123456789")
plan = dict(word.split("=") for word in config.require("plan").split(","))
Job("backup", "0", "")
Job("migrate", plan.get("seconds", "0"), plan.get("fails", ""))
pulumi.log.info("release from " + config.require("folder"))
if "stop" in plan:
    raise SystemExit("the configuration is wrong")
pulumi.export("head", {"deployment": plan["number"], "sha256": "a" * 64})
pulumi.export("secret", secret)
"""


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
def stack(project: Path, api: KubernetesApi) -> Stack:
    """An environment on the real engine, its configuration a copy, not created yet."""
    if not (TOOLCHAIN / "pulumi-resource-pulumi-python").exists():
        pytest.skip("the toolchain is not built: python -m tools.toolchain ensure")
    os.environ["PATH"] = f"{TOOLCHAIN}{os.pathsep}{os.environ['PATH']}"
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


def end_orphans(session: int) -> None:
    """End what a killed engine leaves behind: its plugins, which stay in its session."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)
        except ProcessLookupError:
            continue


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
    engine = holder()
    os.kill(engine, signal.SIGKILL)
    end_orphans(engine)
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
