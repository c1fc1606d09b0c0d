"""The shapes that the components hand to the engine: a mocked engine records them, the assertions are outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks as engine_mocks

from components.bake import BakeArgs
from components.capacity import CapacityArgs
from components.database import DatabaseArgs, application_url_of
from components.gate import Gate, GateArgs
from components.release_flow import ReleaseFlow, ReleaseFlowArgs, Secrets
from components.step_job import StepContext, StepJobArgs
from release import settings
from release.jobs import JobState
from release.manifest import Flags, Manifest, Release, ReleaseType, Schema
from release.plan import Flow, plan
from steps.vocabulary import Step

DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example/forecast@{DIGEST}"
PASSWORD = "only-for-this-test-1234"
JOB = "kubernetes:batch/v1:Job"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


@dataclass(frozen=True)
class Registered:
    """One resource as the engine was asked for it."""

    type: str
    name: str
    inputs: Mapping[str, Any]


class Recorder(engine_mocks.Mocks):
    """Takes every resource as created, with its inputs as outputs."""

    def __init__(self) -> None:
        self.resources: list[Registered] = []

    def new_resource(self, args: engine_mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.resources.append(Registered(args.typ, args.name, args.inputs))
        outputs = dict(args.inputs)
        metadata = dict(outputs.get("metadata") or {})
        outputs["metadata"] = {"name": f"{args.name}-generated", **metadata}
        return args.resource_id or f"{args.name}-id", outputs

    def call(self, args: engine_mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"no function of a provider is called, but {args.token} was")

    def of(self, type_: str) -> dict[str, Mapping[str, Any]]:
        """Inputs by logical name of all resources of a type."""
        return {resource.name: resource.inputs for resource in self.resources if resource.type == type_}


def _manifest() -> Manifest:
    return Manifest(
        version="1.1.0",
        type=ReleaseType.MINOR,
        commit="c" * 40,
        dirty=False,
        images={"forecast": IMAGE},
        schema_=Schema(revision="0002", compatible=("0001", "0002")),
        flags=Flags(file="flags.json", sha256="f" * 64),
        evidence=(),
    )


def _settings(**changes: str) -> settings.Settings:
    values = {
        "release:folder": ".local/releases/1.1.0",
        "release:stepsImage": f"registry.example/steps@{DIGEST}",
        "release:databaseImage": f"registry.example/postgres@{DIGEST}",
        "release:ownerPassword": PASSWORD,
        "release:appPassword": PASSWORD,
        "release:apiReplicas": "4",
        **changes,
    }
    return settings.load(values, {"release:ownerPassword", "release:appPassword"})


def _run(program: Callable[[], None]) -> None:
    pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]  # the SDK leaves it untyped


def _register(jobs: Mapping[Step, JobState] | None = None) -> Recorder:
    recorder = Recorder()
    chosen = _settings()
    engine_mocks.set_mocks(recorder, project="release", stack="staging", preview=False)

    def program() -> None:
        secret = pulumi.Output.secret(PASSWORD)
        ReleaseFlow(
            "staging",
            ReleaseFlowArgs(
                plan=plan(Flow.STAGING),
                context=StepContext(
                    environment="staging",
                    namespace="staging",
                    records_namespace="staging-records",
                    deployment=17,
                    version="1.1.0",
                    image=chosen.steps_image,
                    deadline_seconds=chosen.step_deadline_seconds,
                    jobs=jobs or {},
                ),
                release=Release(
                    folder=Path("release"), manifest=_manifest(), text="text", sha256="b" * 64, flags='{"flags":{}}'
                ),
                settings=chosen,
                secrets=Secrets(application_password=secret, owner_password=secret, database_url=None),
                document="{}",
                resumes=False,
            ),
        )

    _run(program)
    return recorder


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """A first release of 1.1.0 as deployment 17."""
    return _register()


def _pods(recorder: Recorder) -> dict[str, Mapping[str, Any]]:
    kinds = (JOB, DEPLOYMENT, "kubernetes:apps/v1:StatefulSet")
    return {
        f"{kind}/{name}": inputs["spec"]["template"]["spec"]
        for kind in kinds
        for name, inputs in recorder.of(kind).items()
    }


def test_every_planned_step_is_a_job_whose_name_carries_the_deployment(recorder: Recorder) -> None:
    names = [inputs["metadata"]["name"] for inputs in recorder.of(JOB).values()]
    steps = [step for step in plan(Flow.STAGING) if step in set(Step)]
    assert sorted(names) == sorted(f"{step}-17-1-1-0" for step in steps)


def test_only_the_record_steps_run_beside_the_records(recorder: Recorder) -> None:
    homes = {name: inputs["metadata"]["namespace"] for name, inputs in recorder.of(JOB).items()}
    assert {name for name, home in homes.items() if home == "staging-records"} == {"record-open", "record-close"}


def test_every_pod_is_restricted_bounded_and_pinned(recorder: Recorder) -> None:
    pods = _pods(recorder)
    assert len(pods) == len(recorder.of(JOB)) + 3
    for name, pod in pods.items():
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]["type"]) == (True, "RuntimeDefault"), name
        for container in [*pod["containers"], *(pod.get("initContainers") or [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["image"].endswith(DIGEST), name
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
            assert set(container["resources"]["limits"]) == {"memory"}, name


def test_no_secret_stands_in_a_pod(recorder: Recorder) -> None:
    assert PASSWORD not in repr(_pods(recorder))
    assert PASSWORD in repr(recorder.of("kubernetes:core/v1:Secret"))


def test_deployments_leave_their_number_of_pods_to_the_capacity_step(recorder: Recorder) -> None:
    deployments = recorder.of(DEPLOYMENT)
    assert sorted(deployments) == ["api", "worker"]
    for name, inputs in deployments.items():
        assert "replicas" not in inputs["spec"], name
        assert inputs["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, name
    arguments = recorder.of(JOB)["capacity"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["capacity", "--deployment=api=4", "--deployment=worker=1", "--timeout=600"]


def test_a_pod_outlives_leaving_the_endpoints_and_draining(recorder: Recorder) -> None:
    for name, inputs in recorder.of(DEPLOYMENT).items():
        pod = inputs["spec"]["template"]["spec"]
        container = pod["containers"][0]
        leave = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = next(int(variable["value"]) for variable in container["env"] if variable["name"] == "DRAIN_SECONDS")
        assert pod["terminationGracePeriodSeconds"] > leave + drain, name


def test_the_migration_takes_its_scripts_from_the_release(recorder: Recorder) -> None:
    pod = recorder.of(JOB)["migrate"]["spec"]["template"]["spec"]
    assert [container["image"] for container in pod["initContainers"]] == [IMAGE]
    assert "--target=0002" in pod["containers"][0]["args"]


def test_every_job_has_a_deadline_of_its_own(recorder: Recorder) -> None:
    deadlines = {name: inputs["spec"]["activeDeadlineSeconds"] for name, inputs in recorder.of(JOB).items()}
    assert deadlines["bake"] == 3600 + 600
    assert deadlines["migrate"] == 1800
    assert all(deadline > 0 for deadline in deadlines.values())


def test_only_a_failed_job_is_marked_to_be_run_again() -> None:
    jobs = {Step.BACKUP: JobState.PASSED, Step.MIGRATE: JobState.FAILED, Step.ACCESS: JobState.RUNNING}
    marked = {
        name
        for name, inputs in _register(jobs).of(JOB).items()
        if (inputs["metadata"].get("annotations") or {}).get("pulumi.com/replaceUnready") == "true"
    }
    assert marked == {"migrate"}


def test_a_step_may_only_change_its_own_result(recorder: Recorder) -> None:
    roles = recorder.of("kubernetes:rbac.authorization.k8s.io/v1:Role")
    rules = roles["migrate-records"]["rules"]
    assert {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]} in rules
    named = [rule for rule in rules if rule.get("resourceNames")]
    assert {name for rule in named for name in rule["resourceNames"]} == {"result-16-migrate", "result-17-migrate"}
    assert all("*" not in (*rule["verbs"], *rule["resources"]) for role in roles.values() for rule in role["rules"])


def test_flags_are_named_by_their_content(recorder: Recorder) -> None:
    maps = recorder.of("kubernetes:core/v1:ConfigMap")
    name = maps["flags"]["metadata"]["name"]
    pod = recorder.of(DEPLOYMENT)["api"]["spec"]["template"]["spec"]
    assert name.startswith("flags-")
    assert [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume] == [name]


def test_the_gate_shows_a_policy_plain_values() -> None:
    recorder = Recorder()
    engine_mocks.set_mocks(recorder, project="release", stack="staging", preview=False)

    def program() -> None:
        Gate(
            "gate",
            GateArgs(
                environment="staging",
                version="1.1.0",
                manifest="b" * 64,
                images={"forecast": IMAGE},
                direction="release",
                plan=plan(Flow.STAGING),
            ),
        )

    _run(program)
    assert recorder.of("energy:release:Gate")["gate"] == {
        "environment": "staging",
        "version": "1.1.0",
        "manifest": "b" * 64,
        "images": {"forecast": IMAGE},
        "direction": "release",
        "plan": [str(step) for step in plan(Flow.STAGING)],
    }


def test_the_application_url_keeps_everything_but_the_user() -> None:
    owner = "postgresql://owner:pw@db.example:6432/forecast?sslmode=verify-full"
    assert (
        application_url_of(owner, "p@ss/word")
        == "postgresql://forecast_app:p%40ss%2Fword@db.example:6432/forecast?sslmode=verify-full"
    )


def test_wrong_arguments_are_refused_with_what_to_give_instead() -> None:
    context = StepContext(
        environment="staging",
        namespace="staging",
        records_namespace="staging-records",
        deployment=1,
        version="1.0.0",
        image=IMAGE,
        deadline_seconds=60,
    )
    with pytest.raises(ValueError, match="at least 1 s"):
        StepJobArgs(context=context, step=Step.SMOKE, arguments=[], deadline_seconds=0)
    with pytest.raises(ValueError, match="configure at least 1"):
        CapacityArgs(context=context, pods={"api": 0}, timeout_seconds=60)
    password = pulumi.Output.from_input(PASSWORD)
    with pytest.raises(ValueError, match="exactly one"):
        DatabaseArgs(namespace="staging", application_password=password)
    with pytest.raises(ValueError, match="nobody could log in"):
        DatabaseArgs(namespace="staging", application_password=password, image=IMAGE)
    bake = BakeArgs(
        context=context,
        url="http://api",
        seconds=60,
        rate=1,
        max_error_rate=0.01,
        max_p99_milliseconds=500,
        deadline_seconds=61,
    )
    with pytest.raises(ValueError, match="leave room"):
        replace(bake, deadline_seconds=60)
