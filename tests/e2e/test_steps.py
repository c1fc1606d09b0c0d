"""Steps against a real Kubernetes API: records, results, permissions, older deployments' Jobs, capacity.

The steps run in this process, each with a token of the service account and the Role that the program gives it. Needs
the embedded cluster (`make up`), or a KUBECONFIG whose nodes have the images named here.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import httpx2
import lightkube
import pytest
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster as KubeCluster
from lightkube.config.models import User
from lightkube.core.exceptions import ApiError
from lightkube.core.resource import NamespacedResource
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod, ServiceAccount, ServiceAccountToken
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding
from lightkube.types import PatchType

from steps import capacity, kube, permissions, record_close, record_open, records, results, runner, vocabulary
from steps.errors import ClusterError, RecordError
from steps.kube import Cluster, Source
from steps.records import FindingKind, Opening
from steps.results import Attempt
from steps.store import RecordStore, ResultStore
from steps.vocabulary import RecordStatus, Step, StepStatus
from tests.steps_support import Recording, secret
from tools.cluster.images import DNS, PAUSE
from tools.paths import KUBECONFIG

MANIFEST = "version: 1.0.0\n"
ALL_STEPS = tuple(step for step in Step if step is not Step.RECORD_CLOSE)


@dataclass(frozen=True, kw_only=True)
class Stack:
    """An environment of this test alone: two namespaces, an administrator's client."""

    environment: str
    admin: lightkube.Client
    folder: Path

    @property
    def store(self) -> RecordStore:
        return RecordStore(self.admin, self.environment, patience=10)

    def account(self, step: Step, deployment: int) -> lightkube.Client:
        """A client that may do what the step may do, by its own service account and Roles."""
        home = vocabulary.step_namespace(step, self.environment)
        apply(self.admin, ServiceAccount(metadata=ObjectMeta(name=str(step), namespace=home)))
        for scope in vocabulary.Scope:
            namespace = vocabulary.namespace(scope, self.environment)
            rules = [
                {
                    "apiGroups": [rule.api_group],
                    "resources": [rule.resource],
                    "verbs": list(rule.verbs),
                    **({} if rule.resource_names is None else {"resourceNames": list(rule.resource_names)}),
                }
                for rule in permissions.rules(step, deployment)
                if rule.scope is scope
            ]
            metadata = {"name": str(step), "namespace": namespace}
            apply(self.admin, cast(Role, Role.from_dict({"metadata": metadata, "rules": rules})))
            binding = {
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": str(step)},
                "subjects": [{"kind": "ServiceAccount", "name": str(step), "namespace": home}],
            }
            apply(self.admin, cast(RoleBinding, RoleBinding.from_dict(binding)))
        token = self.admin.create(
            ServiceAccountToken(
                metadata=ObjectMeta(namespace=home), spec=TokenRequestSpec(audiences=[], expirationSeconds=3600)
            ),
            str(step),
            namespace=home,
        )
        assert token.status is not None
        config = KubeConfig.from_one(
            cluster=KubeCluster(
                server=self.admin.config.cluster.server,
                certificate_auth=self.admin.config.cluster.certificate_auth,
                certificate_auth_data=self.admin.config.cluster.certificate_auth_data,
            ),
            user=User(token=token.status.token),
            fname=self.admin.config.fname,
        )
        return lightkube.Client(config, timeout=httpx2.Timeout(10), trust_env=False)

    def step(self, module: ModuleType, step: Step, *flags: str, deployment: int = 1, version: str = "1.0.0") -> Run:
        """Runs a step as its runner does, with its own permissions."""
        recording = Recording(step, deployment=deployment, version=version, environment=self.environment)
        recording.context.namespace = vocabulary.step_namespace(step, self.environment)
        recording.context.connect_cluster = lambda: Cluster(self.account(step, deployment), patience=10)
        code = runner.Runner(recording.context).run(cast(runner.StepModule, module), flags)
        found = ResultStore(Cluster(self.admin), self.store.namespace, step, deployment).attempts()
        return Run(code=code, output=recording.output, attempt=found[-1])

    def open(
        self, deployment: int, *, version: str = "1.0.0", inputs: str | None = None, flags: tuple[str, ...] = ()
    ) -> Run:
        document = secret(self.folder, f"record-{deployment}.json", self.opening(deployment, version, inputs).text())
        (self.folder / "release.yaml").write_text(MANIFEST)
        return self.step(
            record_open,
            Step.RECORD_OPEN,
            f"--record-file={document}",
            f"--manifest-file={self.folder / 'release.yaml'}",
            *flags,
            deployment=deployment,
            version=version,
        )

    def opening(self, deployment: int, version: str = "1.0.0", inputs: str | None = None) -> Opening:
        return Opening(
            environment=self.environment,
            deployment=deployment,
            version=version,
            type="minor",
            inputs=inputs or records.sha256(f"inputs of {deployment}"),
            manifest_sha256=records.sha256(MANIFEST),
            images={"forecast": "registry.example/forecast@sha256:" + "a" * 64},
            flags_sha256="b" * 64,
            who="tests",
        )

    def result(self, step: Step, deployment: int, status: StepStatus = StepStatus.PASSED, **data: Any) -> None:
        attempt = Attempt(
            step=str(step),
            deployment=deployment,
            version="1.0.0",
            attempt_pod=f"{step}-{secrets.token_hex(3)}",
            status=status,
            started=records.timestamp(datetime.now(UTC)),
            finished=records.timestamp(datetime.now(UTC)),
            reason=None if status is StepStatus.PASSED else "it broke",
            data=data,
        )
        ResultStore(Cluster(self.admin), self.store.namespace, step, deployment).write(attempt)

    def healthy(self, deployment: int) -> Run:
        for step in ALL_STEPS:
            if step is not Step.RECORD_OPEN:
                self.result(step, deployment)
        return self.step(record_close, Step.RECORD_CLOSE, "--status=healthy", deployment=deployment)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a step ended: exit code, log, and the attempt in its result."""

    code: int
    output: str
    attempt: Attempt

    @property
    def last(self) -> str:
        return self.output.splitlines()[-1]


def apply(client: lightkube.Client, item: NamespacedResource) -> None:
    client.apply(item, field_manager="tests", force=True)


def wait(holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def admin() -> Iterator[lightkube.Client]:
    path = os.environ.get("KUBECONFIG") or str(KUBECONFIG)
    config = KubeConfig.from_file(path).get()
    with lightkube.Client(config, timeout=httpx2.Timeout(10), trust_env=False) as client:
        yield client


@pytest.fixture
def stack(admin: lightkube.Client, tmp_path: Path) -> Iterator[Stack]:
    found = Stack(environment=f"steps-{secrets.token_hex(4)}", admin=admin, folder=tmp_path)
    names = [found.environment, vocabulary.records_namespace(found.environment)]
    for name in names:
        admin.create(Namespace(metadata=ObjectMeta(name=name)))
    yield found
    for name in names:
        admin.delete(Namespace, name)


def test_a_deployment_is_opened_closed_and_chained(stack: Stack) -> None:
    opened = stack.open(1)
    assert opened.code == 0, opened.output
    assert opened.attempt.data["status"] == "open"
    stack.result(Step.MIGRATE, 1, before=None, after="0001")
    stack.result(Step.BACKUP, 1, backup={"name": "b-1", "bytes": 5})
    closed = stack.healthy(1)
    assert closed.code == 0, closed.output
    entry = stack.store.get(1)
    assert entry is not None
    record = entry.record
    assert (record.status, record.schema.before, record.schema.after) == (RecordStatus.HEALTHY, None, "0001")
    assert record.backup == {"name": "b-1", "bytes": 5}
    assert set(record.steps) == {str(step) for step in ALL_STEPS}
    assert record.steps["migrate"].attempts == 2
    assert closed.attempt.data["sha256"] == entry.seal == records.sha256(entry.text)
    assert entry.immutable

    stack.open(2, version="1.1.0")
    stack.healthy(2)
    entries = stack.store.list()
    assert [each.deployment for each in entries] == [1, 2]
    assert entries[1].record.previous == entries[0].link()
    assert records.verify_chain(entries, entries[1].link()) == []


def test_a_closed_record_cannot_be_changed_by_a_patch_and_a_replaced_one_is_found(stack: Stack) -> None:
    stack.open(1)
    stack.healthy(1)
    stack.open(2)
    name = vocabulary.record_name(1)
    patch = {"data": {"record.json": "{}"}}
    with pytest.raises(ApiError, match="immutable"):
        stack.admin.patch(ConfigMap, name, patch, namespace=stack.store.namespace, patch_type=PatchType.MERGE)
    entry = stack.store.get(1)
    assert entry is not None
    forged = stack.admin.get(ConfigMap, name, namespace=stack.store.namespace)
    assert forged.data is not None
    assert forged.metadata is not None
    forged.data["record.json"] = entry.text.replace('"who":"tests"', '"who":"nobody"')
    forged.metadata.resourceVersion = None
    stack.admin.delete(ConfigMap, name, namespace=stack.store.namespace)
    stack.admin.create(forged)
    findings = records.verify_chain(stack.store.list(), None)
    assert [(each.kind, each.deployment) for each in findings] == [
        (FindingKind.CHANGED, 1),
        (FindingKind.BROKEN_LINK, 2),
    ]


def test_opening_again_with_the_same_inputs_changes_nothing(stack: Stack) -> None:
    stack.open(1)
    first = stack.store.get(1)
    again = stack.open(1)
    assert (again.code, stack.store.get(1)) == (0, first)
    assert "is open already, with the same inputs" in again.output
    stack.healthy(1)
    settled = stack.open(1)
    assert (settled.code, settled.attempt.data["status"]) == (0, "healthy")


def test_a_number_that_is_taken_or_not_the_next_is_refused(stack: Stack) -> None:
    stack.open(1)
    other = stack.open(1, inputs="c" * 64)
    assert other.code == 1
    assert "deployment 1 is already used for 1.0.0 (open) with other inputs" in other.last
    gap = stack.open(3)
    assert gap.code == 1
    assert "deployment 3 cannot be opened: the newest record is 1, so the next number is 2" in gap.last
    entry = stack.store.get(1)
    assert entry is not None
    assert entry.record.status is RecordStatus.OPEN


def test_of_two_openings_at_once_one_wins_and_the_other_is_told(stack: Stack) -> None:
    outcomes: list[str] = []

    def open_one(inputs: str) -> None:
        try:
            stack.store.open(stack.opening(1, inputs=inputs), MANIFEST, datetime.now(UTC))
            outcomes.append("opened")
        except RecordError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=open_one, args=(letter * 64,)) for letter in "cdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome == "opened" for outcome in outcomes) == [False, False, False, True]
    assert all("another update came first" in outcome for outcome in outcomes if outcome != "opened")


def test_closing_is_final(stack: Stack) -> None:
    now = datetime.now(UTC)
    stack.store.open(stack.opening(1), MANIFEST, now)
    closed = stack.store.close(1, RecordStatus.FAILED, "the migration failed", now)
    assert stack.store.close(1, RecordStatus.FAILED, "something else", now) == closed
    with pytest.raises(RecordError, match=r"record 1 is closed already \(failed"):
        stack.store.close(1, RecordStatus.HEALTHY, None, now)
    with pytest.raises(RecordError, match="there is no record 2"):
        stack.store.close(2, RecordStatus.HEALTHY, None, now)


def test_a_write_over_a_newer_state_is_not_made(stack: Stack) -> None:
    now = datetime.now(UTC)
    entry = stack.store.open(stack.opening(1), MANIFEST, now)
    stack.admin.set(ConfigMap, vocabulary.record_name(1), namespace=stack.store.namespace, annotations={"touched": "1"})
    closed = records.close_record(entry.record, status=RecordStatus.FAILED, reason="late", now=now)
    assert stack.store._write(entry, closed) is False
    current = stack.store.get(1)
    assert current is not None
    assert current.record.status is RecordStatus.OPEN


def test_a_step_that_did_not_pass_keeps_the_record_from_being_healthy(stack: Stack) -> None:
    stack.open(1)
    for step in ALL_STEPS:
        if step not in {Step.RECORD_OPEN, Step.BACKUP, Step.BAKE}:
            stack.result(step, 1)
    stack.result(Step.BAKE, 1, StepStatus.FAILED)
    run = stack.step(record_close, Step.RECORD_CLOSE, "--status=healthy")
    assert run.code == 1
    assert run.last.endswith(
        "record 1 cannot be closed as healthy: step backup left no result; step bake is failed: it broke"
    )


def job(name: str, step: Step, deployment: int, namespace: str, *, grace: int = 1) -> Job:
    labels = vocabulary.labels(step, deployment)
    return cast(
        Job,
        Job.from_dict(
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "restartPolicy": "Never",
                            "terminationGracePeriodSeconds": grace,
                            "containers": [{"name": "step", "image": PAUSE, "imagePullPolicy": "IfNotPresent"}],
                        },
                    }
                },
            }
        ),
    )


def running(stack: Stack, deployment: int) -> int:
    pods = stack.admin.list(Pod, namespace=stack.environment, labels={vocabulary.LABEL_DEPLOYMENT: str(deployment)})
    return sum(pod.status is not None and pod.status.phase == "Running" for pod in pods)


def test_opening_supersedes_an_older_deployment_and_brings_its_steps_to_rest(stack: Stack) -> None:
    stack.open(1)
    stack.admin.create(job("migrate-1-1-0-0", Step.MIGRATE, 1, stack.environment))
    stack.admin.create(job("smoke-2-1-1-0", Step.SMOKE, 2, stack.environment))
    wait(lambda: running(stack, 1) == 1 and running(stack, 2) == 1, "two running steps")
    run = stack.open(2, version="1.1.0")
    assert run.code == 0, run.output
    assert run.attempt.data["suspended"] == ["migrate-1-1-0-0"]
    assert run.attempt.data["superseded"] == [1]
    assert (running(stack, 1), running(stack, 2)) == (0, 1)
    first = stack.store.get(1)
    assert first is not None
    assert (first.record.status, first.record.reason) == (RecordStatus.FAILED, "superseded by deployment 2")
    assert records.verify_chain(stack.store.list(), first.link()) == []


def test_pods_of_an_older_deployment_that_stay_keep_the_new_one_closed(stack: Stack) -> None:
    stack.open(1)
    # A pod without a Job, which no suspension ends.
    orphan = {
        "metadata": {
            "name": "orphan",
            "namespace": stack.environment,
            "labels": vocabulary.labels(Step.MIGRATE, 1),
        },
        "spec": {"containers": [{"name": "step", "image": PAUSE, "imagePullPolicy": "IfNotPresent"}]},
    }
    stack.admin.create(cast(Pod, Pod.from_dict(orphan)))
    wait(lambda: running(stack, 1) == 1, "a running step")
    run = stack.open(2, flags=("--timeout=3",))
    assert run.code == 1
    assert run.last.endswith(
        "pods of older deployments are still there after 3 s: orphan; "
        f"end them with kubectl delete pod -n {stack.environment} orphan"
    ), run.output
    assert stack.store.get(2) is None
    first = stack.store.get(1)
    assert first is not None
    assert first.record.status is RecordStatus.OPEN


@pytest.mark.parametrize("step", [Step.ACCESS, Step.BACKUP, Step.MIGRATE, Step.CAPACITY, Step.SMOKE, Step.BAKE])
def test_a_step_may_write_its_own_result_and_no_record(stack: Stack, step: Step) -> None:
    stack.open(1)
    cluster = Cluster(stack.account(step, 1), patience=0)
    own = ResultStore(cluster, stack.store.namespace, step, 1)
    attempt = Attempt(
        step=str(step),
        deployment=1,
        version="1.0.0",
        attempt_pod="first",
        status=StepStatus.PASSED,
        started="2026-03-01T12:00:00Z",
        finished="2026-03-01T12:00:01Z",
    )
    own.write(attempt, junit="<testsuites/>")
    own.write(results.parse_attempt(attempt.text().replace('"first"', '"second"')))
    assert [each.attempt_pod for each in own.attempts()] == ["first", "second"]
    with pytest.raises(ClusterError, match="HTTP 403"):
        cluster.config_map(stack.store.namespace, vocabulary.record_name(1))
    with pytest.raises(ClusterError, match="HTTP 403"):
        cluster.patch_config_map(stack.store.namespace, vocabulary.record_name(1), {"data": {"record.json": "{}"}})
    with pytest.raises(ClusterError, match="HTTP 403"):
        ResultStore(cluster, stack.store.namespace, step, 2).attempts()


def deployment(stack: Stack, name: str, **changes: Any) -> Deployment:
    container = {
        "name": name,
        "image": PAUSE,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
        **changes,
    }
    return cast(
        Deployment,
        Deployment.from_dict(
            {
                "metadata": {"name": name, "namespace": stack.environment},
                "spec": {
                    "selector": {"matchLabels": {"app": name}},
                    "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                    "template": {
                        "metadata": {"labels": {"app": name}},
                        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
                    },
                },
            }
        ),
    )


def scale(stack: Stack, *flags: str) -> Run:
    return stack.step(capacity, Step.CAPACITY, *flags)


def replicas(stack: Stack, name: str) -> int | None:
    spec = stack.admin.get(Deployment, name, namespace=stack.environment).spec
    assert spec is not None
    return spec.replicas


def test_capacity_is_reached_and_reaching_it_again_changes_nothing(stack: Stack) -> None:
    stack.admin.create(deployment(stack, "api"))
    stack.admin.create(deployment(stack, "worker"))
    run = scale(stack, "--deployment=api=3", "--deployment=worker=1", "--timeout=60")
    assert run.code == 0, run.output
    assert run.attempt.data["deployments"]["api"] == {"wanted": 3, "before": 1, "ready": 3}
    assert "api: 1 → 3 pods" in run.output
    again = scale(stack, "--deployment=api=3", "--deployment=worker=1", "--timeout=20")
    assert again.code == 0
    assert "api has its 3 pods already" in again.output
    assert replicas(stack, "api") == 3


def test_a_half_rolled_deployment_is_never_scaled(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.admin.create(deployment(stack, "api"))
    assert scale(stack, "--deployment=api=2", "--timeout=60").code == 0
    broken = {"spec": {"template": {"spec": {"containers": [{"name": "api", "image": "embedded.local/none:1"}]}}}}
    stack.admin.patch(Deployment, "api", broken, namespace=stack.environment)
    monkeypatch.setattr(capacity, "SETTLE_SECONDS", 3.0)
    run = scale(stack, "--deployment=api=4", "--timeout=60")
    assert run.code == 1
    assert "not scaled, because the roll-out is not complete (api: 1 of 3 pods have the newest template)" in run.last
    assert replicas(stack, "api") == 2


def test_a_missing_deployment_is_named_with_those_there_are(stack: Stack) -> None:
    stack.admin.create(deployment(stack, "worker"))
    run = scale(stack, "--deployment=api=2", "--timeout=20")
    assert run.last.endswith(f"there is no Deployment api in namespace {stack.environment}, only: worker")


def test_pods_that_never_get_ready_are_listed_with_their_reasons(stack: Stack) -> None:
    reasons = {
        "image": r"(ImagePullBackOff|ErrImagePull).*embedded\.local/none:1",
        "crash": r"(CrashLoopBackOff|Error), (last )?exit code 1.*; last log line: .+",
        "probe": "running, but its readiness probe does not pass",
        "unschedulable": "Unschedulable: .*Insufficient cpu",
    }
    stack.admin.create(deployment(stack, "image", image="embedded.local/none:1"))
    stack.admin.create(deployment(stack, "crash", image=DNS, args=["-conf", "/nowhere"]))
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1}
    stack.admin.create(deployment(stack, "probe", readinessProbe=probe))
    stack.admin.create(deployment(stack, "unschedulable", resources={"requests": {"cpu": "1000"}}))
    run = scale(stack, *(f"--deployment={name}=1" for name in reasons), "--timeout=10")
    assert run.code == 1
    assert "not ready after 10 s: image: 0 of 1 pods ready; crash: 0 of 1 pods ready; " in run.last
    for name, reason in reasons.items():
        assert re.search(rf"capacity   {name}-\S+: {reason}", run.output), run.output


@contextmanager
def forgetting(client: lightkube.Client) -> Iterator[list[int]]:
    """Makes the API answer the first watch with 410, as it does when it has forgotten where the watch was."""
    seen: list[int] = []
    real = lightkube.Client.watch

    def watch(self: lightkube.Client, *arguments: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) == 1:
            options["resource_version"] = "1"
        return real(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightkube.Client, "watch", watch)
        yield seen


def test_a_watch_sees_what_was_there_and_what_comes(stack: Stack) -> None:
    stack.admin.create(deployment(stack, "api"))
    with Cluster(stack.admin).watch(stack.environment, Source(kind="deployments")) as watch:
        first = watch.next(10)
        assert first is not None
        assert set(first.items) == {"api"}
        stack.admin.create(deployment(stack, "worker"))
        wait(lambda: "worker" in ((watch.next(10) or first).items), "the new Deployment", 20)
        stack.admin.delete(Deployment, "api", namespace=stack.environment)
        wait(lambda: "api" not in ((watch.next(10) or first).items), "the Deployment to go", 20)


def test_a_watch_that_the_api_forgot_lists_again(stack: Stack) -> None:
    stack.admin.create(deployment(stack, "api"))
    with forgetting(stack.admin) as seen, Cluster(stack.admin).watch(stack.environment, Source(kind="pods")) as watch:
        wait(lambda: len(seen) >= 1 and watch.next(1) is not None, "a change")
        stack.admin.create(deployment(stack, "worker"))
        wait(lambda: any(name.startswith("worker") for name in getattr(watch.next(5), "items", {})), "the pod", 20)


def test_a_watch_that_is_refused_says_so(stack: Stack) -> None:
    refused = Cluster(stack.account(Step.BAKE, 1))
    with (
        refused.watch(stack.environment, Source(kind="pods")) as watch,
        pytest.raises(ClusterError, match=f"cannot watch in namespace {stack.environment}: .*forbidden"),
    ):
        watch.next(10)


def test_an_unreachable_api_is_an_error_within_the_patience(stack: Stack) -> None:
    config = KubeConfig.from_one(cluster=KubeCluster(server="https://127.0.0.1:1"), user=User(token="x"))
    store = RecordStore(lightkube.Client(config, trust_env=False), stack.environment, patience=1.5)
    began = time.monotonic()
    with pytest.raises(ClusterError, match=f"cannot list ConfigMaps in {stack.environment}-records: ConnectError"):
        store.list()
    assert 0.5 < time.monotonic() - began < 10


def test_without_any_configuration_the_error_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(
        ClusterError, match="no access to a Kubernetes cluster from the pod's service account, KUBECONFIG"
    ):
        kube.client()


def test_flags_of_capacity_are_checked() -> None:
    for text in ("api", "api=0", "=3", "api=many"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not NAME=PODS"):
            capacity.wanted(text)


def test_a_failed_record_needs_a_reason(stack: Stack) -> None:
    stack.open(1)
    run = stack.step(record_close, Step.RECORD_CLOSE, "--status=failed")
    assert run.attempt.reason == "--status failed needs a --reason: it is all that people will find later"
