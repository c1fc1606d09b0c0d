"""What is read from a cluster: records, status, failures. The real client speaks to an API on loopback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightkube
import pytest

from release import cluster, failures, history, status
from release.deployment import decide
from release.errors import ClusterError, RecordError
from steps import records
from steps.records import Link, Opening, Record, Schema, StepOutcome
from steps.results import Attempt, config_map
from steps.vocabulary import RecordStatus, Step, StepStatus, job_name, labels, step_namespace
from tests.unit.kubernetes_api import Json, KubernetesApi

ENVIRONMENT = "staging"
MANIFEST = "version: 1.0.0\n"
IMAGE = "registry.example/forecast@sha256:" + "a" * 64
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi() as server:
        yield server


@pytest.fixture
def client(api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> lightkube.Client:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    return cluster.connect(None)


def link(record: Record) -> Link:
    return Link(deployment=record.deployment, sha256=records.sha256(record.text()))


def opened(number: int, version: str, previous: Record | None) -> Record:
    opening = Opening(
        environment=ENVIRONMENT,
        deployment=number,
        version=version,
        type="minor",
        inputs=f"{number:064x}",
        manifest_sha256=records.sha256(MANIFEST),
        images={"forecast": IMAGE},
        flags_sha256="f" * 64,
        who="ada@laptop",
    )
    return records.open_record(opening, None if previous is None else link(previous), NOON)


def closed(record: Record, reason: str | None = None, schema: Schema | None = None) -> Record:
    return records.close_record(
        record,
        status=RecordStatus.FAILED if reason else RecordStatus.HEALTHY,
        reason=reason,
        now=NOON.replace(minute=2, second=5),
        schema=schema,
        steps={
            "migrate": StepOutcome(
                status="passed", started="2026-03-01T12:00:10Z", finished="2026-03-01T12:00:20Z", attempts=1
            )
        },
    )


def keep(api: KubernetesApi, *found: Record) -> None:
    for record in found:
        api.add("configmaps", records.config_map(record, MANIFEST, f"{ENVIRONMENT}-records"))


def chain() -> tuple[Record, Record, Record]:
    """1.0.0 healthy, 1.1.0 failed, 1.1.1 healthy."""
    first = closed(opened(1, "1.0.0", None), schema=Schema(before=None, after="0001"))
    second = closed(opened(2, "1.1.0", first), reason="migrate: lock not available", schema=Schema(before="0001"))
    third = closed(opened(3, "1.1.1", second), schema=Schema(before="0001", after="0002"))
    return first, second, third


def job(step: Step, number: int, *, condition: str | None = None, reason: str = "BackoffLimitExceeded") -> Json:
    conditions = [{"type": condition, "status": "True", "reason": reason, "message": "m"}] if condition else []
    return {
        "metadata": {
            "name": job_name(step, number, "1.1.0"),
            "namespace": step_namespace(step, ENVIRONMENT),
            "labels": labels(step, number),
        },
        "spec": {"activeDeadlineSeconds": 1800, "template": {"spec": {"containers": []}}},
        "status": {"conditions": conditions},
    }


def pod(name: str, item_labels: dict[str, str], *, containers: list[Json], created: int = 0, **more: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": ENVIRONMENT,
            "labels": item_labels,
            "creationTimestamp": f"2026-03-01T12:00:{created:02}Z",
        },
        "spec": {"containers": []},
        "status": {"containerStatuses": [{**base(), **item} for item in containers], **more},
    }


def base() -> Json:
    return {"image": "i", "imageID": "i", "ready": False, "restartCount": 0}


def ended(code: int, message: str = "") -> Json:
    return {"name": "step", "state": {"terminated": {"exitCode": code, "message": message, "reason": "Error"}}}


def test_an_environment_without_a_record_has_an_empty_history(client: lightkube.Client) -> None:
    assert cluster.records(client, ENVIRONMENT) == []
    assert history.history(client, ENVIRONMENT).document() == {
        "format": 1,
        "environment": "staging",
        "records": [],
        "verified": None,
    }


def test_the_history_has_every_record_with_what_went_in_and_what_came_of_it(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    first, second, _ = chain()
    keep(api, second, first)
    document = history.history(client, ENVIRONMENT).document()
    assert [line["deployment"] for line in document["records"]] == [1, 2]
    assert document["records"][1] == {
        "deployment": 2,
        "status": "failed",
        "version": "1.1.0",
        "type": "minor",
        "who": "ada@laptop",
        "opened": "2026-03-01T12:00:00Z",
        "closed": "2026-03-01T12:02:05Z",
        "seconds": 125,
        "reason": "migrate: lock not available",
        "inputs": f"{2:064x}",
        "images": {"forecast": IMAGE},
        "schema": {"before": "0001", "after": None},
        "backup": None,
        "steps": {
            "migrate": {
                "status": "passed",
                "started": "2026-03-01T12:00:10Z",
                "finished": "2026-03-01T12:00:20Z",
                "attempts": 1,
            }
        },
        "sha256": link(second).sha256,
        "damaged": None,
    }


def test_an_open_record_has_no_end_and_no_seal(api: KubernetesApi, client: lightkube.Client) -> None:
    keep(api, opened(1, "1.0.0", None))
    line = history.history(client, ENVIRONMENT).document()["records"][0]
    assert (line["status"], line["closed"], line["seconds"], line["sha256"]) == ("open", None, None, None)


def test_a_sound_chain_has_no_finding(api: KubernetesApi, client: lightkube.Client) -> None:
    found = chain()
    keep(api, *found)
    verified = history.verify(client, ENVIRONMENT, link(found[2])).document()["verified"]
    assert verified == {"head": {"deployment": 3, "sha256": link(found[2]).sha256}, "findings": []}


def test_a_tampered_record_is_found_and_still_listed(api: KubernetesApi, client: lightkube.Client) -> None:
    keep(api, *chain())
    stored = api.objects[("configmaps", "staging-records", "record-000002")]
    stored["data"]["record.json"] = stored["data"]["record.json"].replace("lock not available", "nothing at all")
    document = history.verify(client, ENVIRONMENT, None).document()
    assert [(item["kind"], item["deployment"]) for item in document["verified"]["findings"]] == [
        ("changed", 2),
        ("broken-link", 3),
    ]
    assert document["records"][1]["reason"] == "migrate: nothing at all"


def test_a_missing_tail_shows_against_the_head(api: KubernetesApi, client: lightkube.Client) -> None:
    first, second, third = chain()
    keep(api, first, second)
    found = history.verify(client, ENVIRONMENT, link(third)).verified
    assert found is not None
    assert [str(finding.kind) for finding in found.findings] == ["missing-tail"]


def test_a_damaged_record_is_listed_as_such_and_counts_as_a_failure(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    keep(api, *chain())
    api.objects[("configmaps", "staging-records", "record-000002")]["data"]["record.json"] = "{"
    line = history.history(client, ENVIRONMENT).document()["records"][1]
    assert (line["deployment"], line["version"]) == (2, None)
    assert line["damaged"].startswith("record-000002 is not JSON")
    found = cluster.records(client, ENVIRONMENT)
    assert [(record.deployment, record.status, record.version) for record in found] == [
        (1, "healthy", "1.0.0"),
        (2, "failed", ""),
        (3, "healthy", "1.1.1"),
    ]
    assert decide(found, found[2].inputs, "1.1.1").settled
    assert decide(found[:2], "x", "1.0.0").number == 3
    assert status.status(client, ENVIRONMENT).document()["version"] == "1.1.1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"deployment": "3", "sha256": "a" * 64}, Link(deployment=3, sha256="a" * 64)),
        ({"deployment": 3.0, "sha256": "a" * 64}, Link(deployment=3, sha256="a" * 64)),
        ({"deployment": "3", "sha256": ""}, None),
    ],
)
def test_the_head_comes_out_of_the_stacks_output(value: object, expected: Link | None) -> None:
    assert history.parse_head(value) == expected


@pytest.mark.parametrize("value", ["x", {}, {"deployment": "x", "sha256": "a"}, {"deployment": 1, "sha256": 2}, [1]])
def test_an_output_that_is_no_head_is_refused(value: object) -> None:
    with pytest.raises(RecordError, match="is no head of a chain"):
        history.parse_head(value)


def workload(api: KubernetesApi, name: str, ready: int | None, desired: int, version: str) -> None:
    own = {"app.kubernetes.io/part-of": "energy-forecast", "app.kubernetes.io/version": version}
    api.add(
        "deployments",
        {
            "metadata": {"name": name, "namespace": ENVIRONMENT, "labels": own},
            "spec": {"replicas": desired, "selector": {}, "template": {}},
            "status": {} if ready is None else {"readyReplicas": ready},
        },
    )


def service(api: KubernetesApi, **spec: Any) -> None:
    port = {"port": 80, "targetPort": 8000, **({"nodePort": 30080} if spec["type"] == "NodePort" else {})}
    ingress = spec.pop("ingress", [])
    api.add(
        "services",
        {
            "metadata": {"name": "api", "namespace": ENVIRONMENT},
            "spec": {"ports": [port], **spec},
            "status": {"loadBalancer": {"ingress": ingress}},
        },
    )


def node(api: KubernetesApi, name: str, ready: str = "True", **addresses: str) -> None:
    api.add(
        "nodes",
        {
            "metadata": {"name": name},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": kind, "address": address} for kind, address in addresses.items()],
            },
        },
    )


def test_a_status_says_what_runs_how_much_of_it_and_where(api: KubernetesApi, client: lightkube.Client) -> None:
    keep(api, *chain())
    workload(api, "api", 2, 3, "1.1.1")
    workload(api, "worker", None, 1, "1.1.1")
    service(api, type="NodePort")
    node(api, "a", ready="False", ExternalIP="203.0.113.9")
    node(api, "b", Hostname="b", InternalIP="10.1.2.3")
    assert status.status(client, ENVIRONMENT).document() == {
        "format": 1,
        "environment": "staging",
        "version": "1.1.1",
        "type": "minor",
        "deployment": 3,
        "since": "2026-03-01T12:02:05Z",
        "images": {"forecast": IMAGE},
        "schema": {"revision": "0002"},
        "pods": {
            "ready": 2,
            "desired": 4,
            "workloads": {
                "api": {"ready": 2, "desired": 3, "version": "1.1.1"},
                "worker": {"ready": 0, "desired": 1, "version": "1.1.1"},
            },
        },
        "url": "http://10.1.2.3:30080",
        "hint": None,
        "newest": {"deployment": 3, "status": "healthy", "version": "1.1.1", "reason": None},
        "open": None,
    }


def test_a_failed_deployment_does_not_hide_what_runs(api: KubernetesApi, client: lightkube.Client) -> None:
    keep(api, *chain()[:2])
    document = status.status(client, ENVIRONMENT).document()
    assert (document["version"], document["deployment"], document["schema"]) == ("1.0.0", 1, {"revision": "0001"})
    assert document["newest"] == {
        "deployment": 2,
        "status": "failed",
        "version": "1.1.0",
        "reason": "migrate: lock not available",
    }


def test_what_is_under_way_is_shown_step_by_step(api: KubernetesApi, client: lightkube.Client) -> None:
    first = chain()[0]
    keep(api, first, opened(2, "1.1.0", first))
    api.add("jobs", job(Step.MIGRATE, 2))
    api.add("jobs", job(Step.RECORD_OPEN, 2, condition="Complete"))
    api.add("jobs", job(Step.BACKUP, 2, condition="Failed"))
    api.add("jobs", job(Step.SMOKE, 1, condition="Complete"))
    attempt(api, Step.MIGRATE, data={"before": "0001", "after": "0002"})
    document = status.status(client, ENVIRONMENT).document()
    assert document["open"] == {
        "deployment": 2,
        "version": "1.1.0",
        "who": "ada@laptop",
        "opened": "2026-03-01T12:00:00Z",
        "steps": [
            {"step": "record-open", "state": "passed"},
            {"step": "backup", "state": "failed"},
            {"step": "migrate", "state": "running"},
        ],
    }
    assert document["schema"] == {"revision": "0002"}
    assert document["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("spec", "url", "hint"),
    [
        ({"type": "ClusterIP"}, None, "kubectl -n staging port-forward service/api 8000:80"),
        ({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.5"}]}, "http://203.0.113.5", None),
        ({"type": "LoadBalancer", "ingress": [{"ip": "2001:db8::5"}]}, "http://[2001:db8::5]", None),
        ({"type": "LoadBalancer", "ingress": [{"hostname": "lb.example"}]}, "http://lb.example", None),
        (
            {"type": "LoadBalancer"},
            None,
            "no address yet; meanwhile: kubectl -n staging port-forward service/api 8000:80",
        ),
        ({"type": "NodePort"}, "http://203.0.113.9:30080", None),
    ],
)
def test_the_address_is_the_one_that_this_machine_reaches(
    api: KubernetesApi, client: lightkube.Client, spec: Json, url: str | None, hint: str | None
) -> None:
    service(api, **spec)
    node(api, "a", InternalIP="10.1.2.3")
    node(api, "b", InternalIP="10.1.2.4", ExternalIP="203.0.113.9")
    found = status.status(client, ENVIRONMENT)
    assert (found.url, found.hint) == (url, hint)


def test_who_may_not_read_nodes_gets_the_way_instead_of_the_address(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    service(api, type="NodePort")
    api.forbidden.add("nodes")
    found = status.status(client, ENVIRONMENT)
    assert (found.url, found.hint) == (None, "kubectl -n staging port-forward service/api 8000:80")


def test_a_cluster_that_refuses_is_an_error_and_not_an_empty_status(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    api.forbidden.add("deployments")
    with pytest.raises(ClusterError, match="does not say how staging stands: deployments is forbidden"):
        status.status(client, ENVIRONMENT)


def attempt(
    api: KubernetesApi, step: Step, *, reason: str | None = None, log: str = "", data: Json | None = None
) -> None:
    result = Attempt(
        step=step,
        deployment=2,
        version="1.1.0",
        attempt_pod=f"{step}-2-x",
        status=StepStatus.FAILED if reason else StepStatus.PASSED,
        started="2026-03-01T12:00:10Z",
        finished="2026-03-01T12:00:20Z",
        reason=reason,
        data=data or {},
        log=log,
    )
    api.add("configmaps", config_map(result, f"{ENVIRONMENT}-records"))


def _explain(client: lightkube.Client, environment: str, deployment: int, name: str) -> str:
    failure = failures.why(client, environment, deployment, name)
    return failure.text() if failure else ""


def test_a_failed_step_is_explained_by_the_last_lines_of_its_newest_pod(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    api.add("jobs", job(Step.MIGRATE, 2, condition="Failed"))
    api.add("jobs", job(Step.BACKUP, 2, condition="Complete"))
    api.add("jobs", job(Step.SMOKE, 2))
    for number, name in enumerate(("migrate-2-a", "migrate-2-b")):
        api.add("pods", pod(name, labels(Step.MIGRATE, 2), containers=[ended(1)], created=number))
    api.logs[("staging", "migrate-2-a", "step")] = "the older one\n"
    lines = [f"12:00:{number:02} migrate line {number}" for number in range(30)]
    api.logs[("staging", "migrate-2-b", "step")] = "\n".join([*lines, "", "column “x” does not exist", ""])
    attempt(api, Step.MIGRATE, reason="column “x” does not exist", log="not used\n")
    text = _explain(client, ENVIRONMENT, 2, "migrate")
    assert text.splitlines()[0] == "migrate:"
    assert text.splitlines()[-1] == "  column “x” does not exist"
    assert text.count("does not exist") == 1
    assert "line 29" in text
    assert "the older one" not in text
    assert len(text.splitlines()) <= failures.LINES + 1
    assert [failure.name for failure in failures.find(client, ENVIRONMENT, 2)] == ["migrate"]
    assert _explain(client, ENVIRONMENT, 2, "backup") == ""
    assert failures.find(client, ENVIRONMENT, 1) == []


def test_a_step_that_ran_out_of_time_is_explained_by_the_result_it_left(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    api.add("jobs", job(Step.MIGRATE, 2, condition="Failed", reason="DeadlineExceeded"))
    attempt(
        api, Step.MIGRATE, reason="interrupted", log="12:00:01 migrate waits for a lock\n\n12:00:02 migrate waits\n"
    )
    assert _explain(client, ENVIRONMENT, 2, "migrate").splitlines() == [
        "migrate:",
        "  12:00:01 migrate waits for a lock",
        "  12:00:02 migrate waits",
        "  the step did not end within its deadline of 1800 s (release:stepDeadlineSeconds)",
    ]


def test_a_step_that_never_began_is_explained_by_the_warnings_about_its_pod(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    api.add("jobs", job(Step.MIGRATE, 2, condition="Failed", reason="DeadlineExceeded"))
    pod = f"{job(Step.MIGRATE, 2)['metadata']['name']}-x7k2p"
    messages = ["Error: ErrImagePull", "Failed to pull image i@sha256:0: not found"]
    for number, (name, message) in enumerate([*((pod, message) for message in messages), ("other", "a" * 99)]):
        metadata = {"name": f"event-{number}", "namespace": ENVIRONMENT}
        api.add(
            "events", {"metadata": metadata, "involvedObject": {"name": name}, "type": "Warning", "message": message}
        )
    assert _explain(client, ENVIRONMENT, 2, "migrate").endswith(
        "s (release:stepDeadlineSeconds); its pod did not start: Failed to pull image i@sha256:0: not found"
    )


def test_a_step_that_cannot_start_is_explained_by_what_holds_it(api: KubernetesApi, client: lightkube.Client) -> None:
    api.add("jobs", job(Step.BACKUP, 2))
    waiting = {"name": "step", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "image i not found"}}}
    api.add("pods", pod("backup-2-a", labels(Step.BACKUP, 2), containers=[waiting]))
    api.add("jobs", job(Step.SMOKE, 2))
    unscheduled = [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]
    api.add("pods", pod("smoke-2-a", labels(Step.SMOKE, 2), containers=[], conditions=unscheduled))
    api.add("jobs", job(Step.BAKE, 2))
    starting = {"name": "step", "state": {"waiting": {"reason": "ContainerCreating"}}}
    api.add("pods", pod("bake-2-a", labels(Step.BAKE, 2), containers=[starting]))
    found = failures.find(client, ENVIRONMENT, 2)
    assert {failure.name: failure.reason for failure in found} == {
        "backup": "container step is in ImagePullBackOff: image i not found",
        "smoke": "no node takes it: 0/1 nodes are available",
    }


def workload_pod(name: str, **more: Any) -> Json:
    own = {"app.kubernetes.io/part-of": "energy-forecast", "app.kubernetes.io/name": "api"}
    return pod(name, own, **more)


def test_pods_that_do_not_get_ready_are_explained_and_ready_ones_are_not(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    ready = [{"type": "Ready", "status": "True"}]
    running = {"name": "api", "state": {"running": {}}}
    api.add("pods", workload_pod("api-old", containers=[running], conditions=ready))
    assert _explain(client, ENVIRONMENT, 2, "api") == ""
    api.add("pods", workload_pod("api-new", containers=[running], created=5))
    api.logs[("staging", "api-new", "api")] = "starting\ndatabase is away\n"
    assert _explain(client, ENVIRONMENT, 2, "api").splitlines() == [
        "api:",
        "  starting",
        "  database is away",
        "  pod api-new is not ready: it runs but does not get ready: its readiness probe fails",
    ]


def test_a_crashing_pod_is_explained_by_what_it_said_last(api: KubernetesApi, client: lightkube.Client) -> None:
    crashing = {
        "name": "api",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 3, "message": "Traceback\nValueError: no model\n"}},
    }
    api.add("pods", workload_pod("api-new", containers=[crashing]))
    assert _explain(client, ENVIRONMENT, 2, "api") == (
        "api:\n  pod api-new is not ready: container api is in CrashLoopBackOff after exit code 3: ValueError: no model"
    )


def test_explaining_never_raises(api: KubernetesApi, client: lightkube.Client) -> None:
    api.forbidden.add("jobs")
    with pytest.raises(ClusterError):
        failures.find(client, ENVIRONMENT, 2)
    failure = failures.why(client, ENVIRONMENT, 2, "migrate")
    assert failure is not None
    assert failure.sentence == (
        "migrate: its last log lines cannot be read: the cluster does not say what failed in staging: jobs is forbidden"
    )


def test_an_open_record_is_closed_as_failed_once_and_sealed(api: KubernetesApi, client: lightkube.Client) -> None:
    first = chain()[0]
    keep(api, first, opened(2, "1.1.0", first))
    attempt(api, Step.MIGRATE, reason="column missing", data={"before": "0001", "after": None})
    assert failures.close(client, ENVIRONMENT, 2, "migrate: column missing")
    assert not failures.close(client, ENVIRONMENT, 2, "again")
    stored = api.objects[("configmaps", "staging-records", "record-000002")]
    written = json.loads(stored["data"]["record.json"])
    assert (written["status"], written["reason"]) == ("failed", "migrate: column missing")
    assert written["steps"]["migrate"]["status"] == "failed"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written["closed"])
    assert stored["immutable"] is True
    assert stored["metadata"]["labels"]["release.energy/status"] == "failed"
    assert history.verify(client, ENVIRONMENT, link(first)).verified == history.Verification(
        head=link(first), findings=[]
    )


def test_a_deployment_without_a_record_or_with_a_healthy_one_is_left_alone(
    api: KubernetesApi, client: lightkube.Client
) -> None:
    keep(api, chain()[0])
    before = json.dumps(list(api.objects.values()))
    assert not failures.close(client, ENVIRONMENT, 1, "no")
    assert not failures.close(client, ENVIRONMENT, 2, "no")
    assert json.dumps(list(api.objects.values())) == before


def test_a_kubeconfig_that_is_missing_or_lacks_the_context_says_where_it_looked(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    with pytest.raises(ClusterError, match=r"Context 'other' not found; looked in .*kubeconfig, context other; start"):
        cluster.connect("other")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"none not found; looked in .*none, context \(current\); start"):
        cluster.connect(None)


def test_a_cluster_that_is_gone_is_named_with_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with KubernetesApi() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(ClusterError, match=r"context test; start the embedded cluster with `make up`"):
        cluster.records(cluster.connect(None), ENVIRONMENT)
