"""A release to staging as its users meet it: the real engine, the embedded cluster, a real database, one story.

The tests of this module share one environment and run in their order, as releases do: each says what it found before.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightkube
import pytest
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod

from release.manifest import load
from release.plan import Flow, plan
from steps.vocabulary import LABEL_DEPLOYMENT, Step, job_name, record_name
from tests.e2e.load import Load
from tests.e2e.processes import end_session
from tests.e2e.releases import PLANTED, UNBUILT
from tests.e2e.stack import Stack
from tools import paths

STEPS = [Step(step) for step in plan(Flow.STAGING) if step in set(Step)]
FULL = (2, 2)


def _wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for a condition that nothing announces to the outside; fails with `what` when it does not come."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"{what} did not come within {seconds} s"
        time.sleep(0.2)


def _half_hours(count: int) -> list[dict[str, object]]:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    return [
        {"at": (start + timedelta(minutes=30 * index)).strftime("%Y-%m-%dT%H:%M:%SZ"), "demand_mw": 25000.0 + index}
        for index in range(count)
    ]


def _rows(stack: Stack) -> str:
    """Count and sum of the readings that users stored; what synthetic clients store is theirs."""
    return stack.sql("SELECT count(*), sum(demand_mw) FROM readings WHERE at < '2026-06-01'")


def test_a_preview_names_every_step_and_creates_nothing(staging: Stack) -> None:
    shown = staging.pulumi("preview").stdout
    for step in STEPS:
        assert re.search(rf"batch/v1:Job\s+{step}\s+create", shown), step
    with pytest.raises(lightkube.ApiError, match="not found"):
        staging.client.get(Namespace, staging.name)


def test_every_problem_of_the_configuration_is_said_at_once(staging: Stack) -> None:
    staging.pulumi("config", "set", "release:apiReplicas", "none")
    staging.pulumi("config", "set", "release:bakeSeconds", "1")
    done = staging.pulumi("up", "--yes", "--skip-preview", check=False)
    staging.configure("1.0.0")
    assert done.returncode != 0
    for key in ("release:apiReplicas", "release:bakeSeconds"):
        assert re.search(rf"{key}.*`pulumi config set {key} \S+ -s {staging.name}`", done.stdout), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    with pytest.raises(lightkube.ApiError, match="not found"):
        staging.client.get(Namespace, staging.name)


def test_an_unreachable_cluster_is_said_before_anything_is_created(staging: Stack, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    address = re.compile(r"server: \S+")
    kubeconfig.write_text(address.sub("server: https://127.0.0.1:9", paths.KUBECONFIG.read_text()))
    variables = {**staging.variables, "KUBECONFIG": str(kubeconfig)}
    done = staging.run(["pulumi", "preview", "--stack", staging.name, "--non-interactive"], variables=variables)
    assert done.returncode != 0
    assert "kubernetes:context: NAME" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unknown_version_lists_those_that_are_there(staging: Stack) -> None:
    done = staging.up("7.7.7", check=False)
    assert done.returncode == 2
    assert "1.0.0" in done.stderr
    assert "make up" in done.stderr


def test_plain_pulumi_up_is_the_first_release(staging: Stack) -> None:
    staging.pulumi("up", "--yes", "--skip-preview")
    status = staging.status()
    assert (status["version"], status["deployment"], status["schema"]["revision"]) == ("1.0.0", 1, "0001")
    assert status["pods"]["workloads"]["api"] == {"ready": 2, "desired": 2, "version": "1.0.0"}
    assert staging.get("/version")["version"] == "1.0.0"
    record = staging.history()[0]
    assert record["status"] == "healthy"
    assert {name: step["status"] for name, step in record["steps"].items() if name != Step.RECORD_CLOSE} == {
        str(step): "passed" for step in STEPS if step is not Step.RECORD_CLOSE
    }
    staging.release("history", staging.name, "--verify")


def test_an_unchanged_update_changes_nothing(staging: Stack) -> None:
    before = staging.jobs(1)
    staging.pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert staging.jobs(1) == before
    assert len(staging.history()) == 1


def test_an_upgrade_under_load_fails_no_request_and_loses_no_row(staging: Stack) -> None:
    staging.post_readings(_half_hours(480))
    before = _rows(staging)
    with Load(url=staging.status()["url"]) as load:
        staging.up("1.1.0")
    assert load.failures == []
    assert load.sent > 1000
    assert _rows(staging) == before
    assert before.startswith("480|")
    assert staging.status()["schema"]["revision"] == "0002"
    assert staging.sql("SELECT count(*) FROM readings WHERE region IS NULL") == "0"
    assert staging.get("/version")["version"] == "1.1.0"
    assert sorted(staging.jobs(2)) == sorted(STEPS)


def test_a_failing_migration_leaves_the_old_pods_serving(staging: Stack) -> None:
    before = _rows(staging)
    staging.sql("CREATE TABLE test_fail ()")
    with Load(url=staging.status()["url"]) as load:
        done = staging.up(PLANTED, check=False)
    assert done.returncode == 1
    assert "planted: this migration says no" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert load.failures == []
    assert staging.ready("api") == FULL
    assert staging.get("/version")["version"] == "1.1.0"
    assert _rows(staging) == before
    newest = staging.status()["newest"]
    assert (newest["deployment"], newest["status"]) == (3, "failed")
    assert "planted: this migration says no" in newest["reason"]
    staging.sql("DROP TABLE test_fail")


def test_a_hanging_migration_ends_at_its_deadline(staging: Stack) -> None:
    staging.sql("CREATE TABLE test_hang ()")
    done = staging.up(PLANTED, check=False)
    assert done.returncode == 1
    assert "within its deadline of 20 s" in done.stdout + done.stderr
    assert staging.ready("api") == FULL
    assert staging.get("/version")["version"] == "1.1.0"
    _wait_until(
        lambda: (
            staging.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()"
            )
            == "0"
        ),
        20,
        "the end of the hanging statement",
    )
    staging.sql("DROP TABLE test_hang")


def test_a_missing_image_is_named(staging: Stack) -> None:
    done = staging.up(UNBUILT, check=False)
    assert done.returncode == 1
    image = load(paths.RELEASES / UNBUILT).manifest.images["forecast"]
    assert image in staging.status()["newest"]["reason"], done.stdout + done.stderr
    assert staging.ready("api") == FULL
    assert staging.get("/version")["version"] == "1.1.0"


def test_a_database_that_is_away_fails_the_update_and_nothing_else(staging: Stack) -> None:
    before = _rows(staging)
    staging.scale_database(0)
    done = staging.up(PLANTED, check=False)
    staging.scale_database(1)
    assert done.returncode == 1
    assert f"no connection to database forecast on database.{staging.name}.svc:5432" in done.stdout + done.stderr
    assert _rows(staging) == before


def test_a_killed_update_is_gone_on_with_and_pods_that_never_get_ready_replace_none(
    staging: Stack, tmp_path: Path
) -> None:
    staging.sql("CREATE TABLE test_slow ()")
    staging.pulumi("config", "set", "release:folder", os.path.relpath(paths.RELEASES / PLANTED, paths.ROOT))
    name = job_name(Step.MIGRATE, 7, PLANTED)
    process = staging.start("up", "--yes", "--skip-preview", log=tmp_path / "killed.log")
    try:
        _wait_until(lambda: _is_active(staging, name), 120, "the migration's Job")
    finally:
        end_session(process.pid)
        process.wait()
    uid = staging.jobs(7)[Step.MIGRATE]
    with Load(url=staging.status()["url"]) as load:
        done = staging.up(PLANTED, check=False)
    said = done.stdout + done.stderr
    assert staging.jobs(7)[Step.MIGRATE] == uid, said
    assert len(list(staging.client.list(Pod, namespace=staging.name, labels={"job-name": name}))) == 1
    # The migration passed; this release's pods wait for a table that is not there yet.
    assert staging.status()["schema"]["revision"] == "0900", said
    assert (done.returncode, staging.status()["newest"]["deployment"]) == (1, 7), said
    assert "is not ready" in said
    assert load.failures == []
    assert _ready_pods(staging, "1.1.0") == FULL[0]
    staging.sql("DROP TABLE test_slow")


def test_the_same_command_goes_through_once_the_cause_is_gone(staging: Stack) -> None:
    staging.sql("CREATE TABLE test_ready ()")
    before = _rows(staging)
    staging.up(PLANTED)
    assert staging.get("/version")["version"] == PLANTED
    assert staging.ready("api") == FULL
    assert _rows(staging) == before


def test_a_redeploy_runs_all_its_steps_again_and_a_second_update_beside_it_says_who_is_at_work(
    staging: Stack, tmp_path: Path
) -> None:
    newest = staging.status()["deployment"]
    staging.pulumi("config", "set", "release:folder", os.path.relpath(paths.RELEASES / "1.1.0", paths.ROOT))
    first = staging.start("up", "--yes", "--skip-preview", log=tmp_path / "first.log")
    try:
        locks = staging.state / ".pulumi" / "locks"
        _wait_until(lambda: any(locks.rglob("*.json")), 30, "the first update's lock")
        second = staging.up("1.1.0", check=False)
        assert second.returncode == 1
        assert str(first.pid) in second.stderr
    finally:
        assert first.wait(timeout=240) == 0, (tmp_path / "first.log").read_text()
    status = staging.status()
    assert (status["version"], status["deployment"]) == ("1.1.0", newest + 1)
    assert status["schema"]["revision"] == "0900"
    names = {
        job.metadata.name
        for namespace in (staging.name, staging.records)
        for job in staging.client.list(Job, namespace=namespace, labels={LABEL_DEPLOYMENT: str(newest + 1)})
        if job.metadata
    }
    assert names == {job_name(step, newest + 1, "1.1.0") for step in STEPS}
    assert _rows(staging).startswith("480|")


def test_no_secret_stands_anywhere_in_the_open(staging: Stack) -> None:
    passwords = [
        staging.pulumi("config", "get", f"release:{key}").stdout.strip() for key in ("ownerPassword", "appPassword")
    ]
    assert all(len(password) >= 16 for password in passwords)
    places = {
        "history": staging.pulumi("stack", "history", "--json").stdout,
        "outputs": staging.pulumi("stack", "output", "--json").stdout,
        "state": staging.pulumi("stack", "export").stdout,
        "command line": staging.release("status", staging.name, "--json").stdout
        + staging.release("history", staging.name, "--json").stdout,
    }
    places |= {str(file): file.read_text(errors="replace") for file in staging.state.rglob("*") if file.is_file()}
    for namespace in (staging.name, staging.records):
        for job in staging.client.list(Job, namespace=namespace):
            places[f"job {job.metadata.name if job.metadata else ''}"] = json.dumps(job.to_dict(), default=str)
        for pod in staging.client.list(Pod, namespace=namespace):
            assert pod.metadata is not None and pod.metadata.name is not None and pod.spec is not None
            places[f"pod {pod.metadata.name}"] = json.dumps(pod.to_dict(), default=str)
            for container in pod.spec.containers:
                lines = staging.client.log(pod.metadata.name, namespace=namespace, container=container.name)
                places[f"log {pod.metadata.name}"] = "".join(lines)
    for found in staging.config_maps():
        places[f"config map {found.metadata.name if found.metadata else ''}"] = json.dumps(found.data)
    assert len(places) > 40
    leaks = [place for place, text in places.items() if any(password in text for password in passwords)]
    assert leaks == []


def test_a_tampered_record_is_found(staging: Stack) -> None:
    staging.release("history", staging.name, "--verify")
    name = record_name(2)
    record = staging.client.get(ConfigMap, name, namespace=staging.records)
    assert record.data is not None and record.metadata is not None
    # A closed record cannot be changed, so whoever wants to has to delete it and make another one.
    with pytest.raises(lightkube.ApiError, match="immutable"):
        staging.client.patch(ConfigMap, name, {"data": {"record.json": "{}"}}, namespace=staging.records)
    staging.client.delete(ConfigMap, name, namespace=staging.records)
    forged = {**record.data, "record.json": record.data["record.json"].replace('"who":"', '"who":"not-', 1)}
    kept = ObjectMeta(
        name=name,
        namespace=staging.records,
        labels=record.metadata.labels,
        annotations=record.metadata.annotations,
    )
    staging.client.create(ConfigMap(metadata=kept, data=forged, immutable=True))
    done = staging.release("history", staging.name, "--verify", check=False)
    assert done.returncode == 1
    assert re.search(r"\b2\b.*(changed|seal|hash)", done.stdout + done.stderr)


def test_a_missing_newest_record_is_found(staging: Stack) -> None:
    newest = staging.status()["deployment"]
    staging.client.delete(ConfigMap, record_name(newest), namespace=staging.records)
    done = staging.release("history", staging.name, "--verify", check=False)
    assert done.returncode == 1
    assert re.search(rf"missing-tail: .*\b{newest}\b", done.stdout + done.stderr)


def _ready_pods(stack: Stack, version: str) -> int:
    labels: dict[str, Any] = {"app.kubernetes.io/name": "api", "app.kubernetes.io/version": version}
    pods = stack.client.list(Pod, namespace=stack.name, labels=labels)
    conditions = [(pod.status.conditions if pod.status else None) or [] for pod in pods]
    return sum(any(each.type == "Ready" and each.status == "True" for each in pod) for pod in conditions)


def _is_active(stack: Stack, name: str) -> bool:
    try:
        job = stack.client.get(Job, name, namespace=stack.name)
    except lightkube.ApiError:
        return False
    pods = stack.client.list(Pod, namespace=stack.name, labels={"job-name": name})
    running = any(pod.status is not None and pod.status.phase == "Running" for pod in pods)
    return running and bool(job.status and job.status.active)
