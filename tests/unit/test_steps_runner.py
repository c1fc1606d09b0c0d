"""The runner: arguments, environment, exit codes, results, signals; and that no secret leaves through it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from steps import permissions, results, runner
from steps.context import Context, Log, Redactor
from steps.errors import ClusterError, Interrupted, RecordError, StepError
from steps.kube import Cluster
from steps.results import LOG_BYTES, Attempt
from steps.vocabulary import Scope, Step, StepStatus

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {
    "RELEASE_ENVIRONMENT": "staging",
    "RELEASE_DEPLOYMENT": "17",
    "RELEASE_VERSION": "1.3.0",
    "RECORDS_NAMESPACE": "staging-records",
    "POD_NAMESPACE": "staging",
    "POD_NAME": "smoke-17-abc",
}


class Stub:
    """Stands in a step's module."""

    def __init__(self, outcome: Mapping[str, Any] | BaseException, junit: str | None = None) -> None:
        self.outcome = outcome
        self.junit = junit

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--needed", required=True)

    def run(self, context: Context, arguments: Any) -> Mapping[str, Any]:
        context.log(f"needed is {arguments.needed}")
        context.redactor.learn("hunter2-secret")
        context.junit = self.junit
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Api:
    """Keeps what was written to the cluster, or cannot be reached."""

    def __init__(self, *, reachable: bool = True) -> None:
        self.api = None
        self.patience = 60.0
        self.reachable = reachable
        self.maps: dict[str, dict[str, Any]] = {}
        self.patched = 0

    def create_config_map(self, document: dict[str, Any]) -> bool:
        if not self.reachable:
            raise ClusterError("cannot create ConfigMap: ConnectError")
        return self.maps.setdefault(document["metadata"]["name"], document) is document

    def patch_config_map(self, namespace: str, name: str, patch: dict[str, Any]) -> bool:
        self.patched += 1
        self.maps[name]["data"].update(patch["data"])
        return True


def run(
    outcome: Mapping[str, Any] | BaseException,
    monkeypatch: pytest.MonkeyPatch,
    *,
    api: Api | None = None,
    junit: str | None = None,
    arguments: tuple[str, ...] = ("--needed=1",),
    pod: str = "smoke-17-abc",
) -> tuple[int, str, Api]:
    found = api or Api()
    stream = io.StringIO()
    monkeypatch.setattr(runner, "load", lambda _: Stub(outcome, junit))
    monkeypatch.setattr(runner, "stop_on_signals", lambda: None)
    monkeypatch.setattr(runner, "Cluster", lambda *_, **__: found)
    code = runner.main(
        ["smoke", *arguments],
        {**VARIABLES, "POD_NAME": pod},
        connect=lambda: found,  # type: ignore[arg-type, return-value]
        stream=stream,
    )
    return code, stream.getvalue(), found


def attempt(api: Api, pod: str = "smoke-17-abc") -> Attempt:
    return results.parse_attempt(api.maps["result-17-smoke"]["data"][f"{pod}.json"])


def test_a_step_that_passes_ends_with_0_and_leaves_its_data_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, api = run({"answer": 42}, monkeypatch, junit="<testsuites/>")
    written = attempt(api)
    assert (code, written.status, written.reason, written.data) == (0, StepStatus.PASSED, None, {"answer": 42})
    assert output.splitlines()[-1].endswith(" smoke done")
    assert "smoke needed is 1\n" in written.log
    assert api.maps["result-17-smoke"]["data"]["smoke-17-abc.junit.xml"] == "<testsuites/>"
    assert api.maps["result-17-smoke"]["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "energy-forecast",
        "app.kubernetes.io/name": "smoke",
        "release.energy/deployment": "17",
        "release.energy/step": "smoke",
    }


def test_a_step_that_fails_ends_with_1_and_its_reason_last(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, api = run(StepError("it broke\nstatement: SELECT 1", data={"after": "0001"}), monkeypatch)
    written = attempt(api)
    assert (code, written.status, written.data) == (1, StepStatus.FAILED, {"after": "0001"})
    assert written.reason == "it broke\nstatement: SELECT 1"
    assert output.splitlines()[-2].endswith(" smoke statement: SELECT 1")
    assert output.splitlines()[-1].endswith(" smoke failed: it broke")


@pytest.mark.parametrize(
    ("error", "code", "status", "reason"),
    [
        (RecordError("taken"), 1, StepStatus.FAILED, "taken"),
        (KeyError("x"), 1, StepStatus.FAILED, "unexpected KeyError: 'x'"),
        (Interrupted("SIGTERM"), 143, StepStatus.INTERRUPTED, "interrupted by SIGTERM"),
    ],
)
def test_every_end_leaves_a_result(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, status: StepStatus, reason: str
) -> None:
    ended, _, api = run(error, monkeypatch)
    written = attempt(api)
    assert (ended, written.status, written.reason) == (code, status, reason)


def test_wrong_flags_are_a_failed_step_with_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output, api = run({}, monkeypatch, arguments=("--nedeed=1",))
    assert code == 1
    assert "the following arguments are required: --needed" in (attempt(api).reason or "")
    assert output.splitlines()[-1].endswith("the following arguments are required: --needed")


def test_attempts_of_several_pods_stay_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, api = run(StepError("no"), monkeypatch, pod="smoke-17-first")
    run({}, monkeypatch, api=api, pod="smoke-17-second")
    found = results.attempts(api.maps["result-17-smoke"])
    assert [(each.attempt_pod, each.status) for each in found] == [
        ("smoke-17-first", StepStatus.FAILED),
        ("smoke-17-second", StepStatus.PASSED),
    ]
    assert api.patched == 1
    assert results.outcome(found).attempts == 2
    assert results.outcome(found).status == "passed"


@pytest.mark.parametrize(("outcome", "code", "last"), [({}, 0, "done"), (StepError("no"), 1, "failed: no")])
def test_the_verdict_stands_when_the_result_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, outcome: Mapping[str, Any] | BaseException, code: int, last: str
) -> None:
    ended, output, _ = run(outcome, monkeypatch, api=Api(reachable=False))
    assert ended == code
    assert "the result could not be written: cannot create ConfigMap: ConnectError" in output
    assert output.splitlines()[-1].endswith(f" smoke {last}")


def test_no_secret_is_in_log_reason_or_data(monkeypatch: pytest.MonkeyPatch) -> None:
    error = StepError(
        "hunter2-secret in postgresql://owner:s3cr3t-pw@db:5432/x?password=other-pw",
        data={"url": "postgresql://owner:s3cr3t-pw@db/x", "deep": [{"hunter2-secret": "password='third pw'"}]},
    )
    _, output, api = run(error, monkeypatch)
    everything = output + json.dumps(api.maps)
    for hidden in ("hunter2", "s3cr3t", "other-pw", "third pw"):
        assert hidden not in everything
    assert "postgresql://owner:***@db:5432/x?password=***" in output


def test_a_secret_is_hidden_however_it_is_written() -> None:
    redactor = Redactor()
    redactor.learn("p@ss/wörd")
    for text in ("p@ss/wörd", "p%40ss%2Fw%C3%B6rd", "p%40ss/w%C3%B6rd"):
        assert redactor.text(f"<{text}>") == "<***>"


def test_the_log_keeps_its_last_64_kib_in_whole_lines() -> None:
    log = Log("smoke", Redactor(), stream=io.StringIO())
    for number in range(3000):
        log(f"line {number:05d} {'x' * 40}")
    kept = log.text
    assert LOG_BYTES - 100 < len(kept.encode()) <= LOG_BYTES
    assert kept.splitlines()[-1].endswith(f"line 02999 {'x' * 40}")
    assert " smoke line " in kept.splitlines()[0]


def test_a_tail_is_cut_at_a_line_and_never_inside_a_character() -> None:
    assert results.tail("first\nsecond\n", 9) == "second\n"
    assert results.tail("ä" * 10, 5) == "ää"


@pytest.mark.parametrize("damaged", ["{", "[]", '{"step":"smoke"}', '{"step":1,"deployment":"x"}'])
def test_a_damaged_result_is_named(damaged: str) -> None:
    with pytest.raises(RecordError, match=r"pod\.json in result-17-smoke cannot be read"):
        results.attempts({"metadata": {"name": "result-17-smoke"}, "data": {"pod.json": damaged}})


def test_an_incomplete_environment_is_named_in_full() -> None:
    stream = io.StringIO()
    code = runner.main(["smoke"], {"RELEASE_DEPLOYMENT": "x", "POD_NAME": "p"}, stream=stream)
    assert code == 1
    assert stream.getvalue().rstrip().split("failed: ")[1].split("; ") == [
        "the environment of the pod is incomplete: RELEASE_ENVIRONMENT is not set",
        "RELEASE_VERSION is not set",
        "RECORDS_NAMESPACE is not set",
        "POD_NAMESPACE is not set",
        "RELEASE_DEPLOYMENT is 'x', expected a whole number from 1",
    ]


def test_an_unknown_step_lists_the_known_ones() -> None:
    stream = io.StringIO()
    assert runner.main(["bakc"], VARIABLES, stream=stream) == 1
    assert "must be one of: record-open, access, backup, migrate, capacity, smoke, bake, record-close, got 'bakc'" in (
        stream.getvalue()
    )


@pytest.mark.parametrize("step", list(Step))
def test_every_step_has_a_module_with_flags(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "stop_on_signals", lambda: None)
    stream = io.StringIO()
    code = runner.main([step, "--surely-unknown"], VARIABLES, connect=_unreachable, stream=stream)
    assert code == 1
    assert "the following arguments are required: --" in stream.getvalue()


def _unreachable() -> Cluster:
    raise ClusterError("none here")


def test_the_process_ends_a_step_cleanly_on_sigterm(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("postgresql://owner:Geheimnis-1@127.0.0.1:1/forecast")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "steps",
            "migrate",
            f"--database-url-file={url}",
            f"--migrations={_migrations(tmp_path)}",
            "--target=0001",
        ],
        cwd=ROOT,
        env={**VARIABLES, "PATH": os.environ["PATH"], "KUBECONFIG": str(tmp_path / "none")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "no connection to database forecast on 127.0.0.1:1 as owner yet" in first
    process.send_signal(signal.SIGTERM)
    output = first + process.communicate(timeout=20)[0]
    assert process.returncode == 143
    assert output.rstrip().endswith("migrate interrupted: interrupted by SIGTERM")
    assert "Geheimnis" not in output


def _migrations(folder: Path) -> Path:
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001.py").write_text(
        '"""first"""\nrevision = "0001"\ndown_revision = None\n\ndef upgrade():\n    pass\n'
    )
    return folder / "migrations"


def test_every_step_may_write_its_own_result_and_only_record_steps_more() -> None:
    assert set(permissions.PERMISSIONS) == set(Step)
    for step in Step:
        rules = permissions.rules(step, 17)
        configmaps = [rule for rule in rules if rule.resource == "configmaps"]
        assert {rule.scope for rule in configmaps} == {Scope.RECORDS}
        unnamed = {verb for rule in configmaps if rule.resource_names is None for verb in rule.verbs}
        named = {name for rule in configmaps for name in rule.resource_names or ()}
        if step.home is Scope.RECORDS:
            assert unnamed == {"create", "get", "list", "patch"}
        else:
            assert unnamed == {"create"}
            assert named == {f"result-16-{step}", f"result-17-{step}"}


def test_no_step_may_delete_or_see_secrets() -> None:
    for step in Step:
        for rule in permissions.rules(step, 1):
            assert "delete" not in rule.verbs
            assert rule.resource not in {"secrets", "pods/exec"}
            assert "*" not in (rule.api_group, rule.resource, *rule.verbs)


def test_permissions_of_no_deployment_cannot_be_used_by_mistake() -> None:
    with pytest.raises(ValueError, match=r"take it from steps\.permissions\.rules\(step, deployment\)"):
        [rule.resource_names for rule in permissions.PERMISSIONS[Step.BAKE]]
