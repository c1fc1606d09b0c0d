"""One step of a release as a Kubernetes Job: named by the deployment, run once, waited for by the engine.

Leaves to others: what the step does (`steps/`), which steps there are and in which order (`components.release_flow`).
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes import batch, core, meta

from components.pods import Size, Volume, restricted_container, restricted_pod, scratch
from release.jobs import JobState
from steps.vocabulary import Step, job_name, labels

RERUN_ANNOTATION = "pulumi.com/replaceUnready"


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What all step Jobs of one deployment share.

    `jobs` says how the Jobs of this deployment stood in the cluster when the program started; a step that is not in it
    has not been started yet.
    """

    environment: str
    namespace: str
    records_namespace: str
    deployment: int
    version: str
    image: str
    deadline_seconds: int
    jobs: Mapping[Step, JobState] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepJobArgs:
    """One step: its command line, its files and its deadline (the context's when not given)."""

    context: StepContext
    step: Step
    arguments: Sequence[str]
    volumes: Sequence[Volume] = ()
    init_containers: Sequence[core.v1.ContainerArgs] = ()
    namespace: str | None = None
    deadline_seconds: int | None = None
    size: Size = field(default_factory=Size)

    def __post_init__(self) -> None:
        if self.deadline_seconds is not None and self.deadline_seconds <= 0:
            raise ValueError(
                f"{self.step}: a deadline of {self.deadline_seconds} s would fail the step before it starts; "
                "give at least 1 s"
            )


class StepJob(pulumi.ComponentResource):
    """Runs one step and is there once the step has passed; a failed step fails the update."""

    passed: pulumi.Output[bool]

    def __init__(self, name: str, args: StepJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:StepJob", name, None, opts)
        context = args.context
        namespace = args.namespace or context.namespace
        metadata_labels = labels(args.step, context.deployment)
        state = context.jobs.get(args.step)
        job = batch.v1.Job(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=job_name(args.step, context.deployment, context.version),
                namespace=namespace,
                labels=metadata_labels,
                annotations={RERUN_ANNOTATION: "true"} if state is JobState.FAILED else {},
            ),
            spec=batch.v1.JobSpecArgs(
                active_deadline_seconds=args.deadline_seconds or context.deadline_seconds,
                backoff_limit=0,
                pod_failure_policy=_lost_pods_are_no_failures(),
                template=core.v1.PodTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=metadata_labels), spec=_pod(args, namespace)
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                # Without it a replaced Job is applied onto the old one of the same name, deleted after, and never runs.
                delete_before_replace=True,
                ignore_changes=_ignored(state),
            ),
        )
        # Unlike the metadata, the status is unknown in a preview: what must wait for the Job derives from it.
        self.passed = job.status.apply(lambda status: True)
        self.register_outputs({"passed": self.passed})


def _ignored(state: JobState | None) -> list[str]:
    """The annotation makes the provider replace a Job that has not passed.

    A running Job must therefore not carry it (it is waited for, not doubled); a failed one gets it; on one that has
    passed it makes no difference, and ignoring it there keeps an unchanged update without any change.
    """
    if state in {JobState.FAILED, JobState.RUNNING}:
        return []
    return [f'metadata.annotations["{RERUN_ANNOTATION}"]']


def _lost_pods_are_no_failures() -> batch.v1.PodFailurePolicyArgs:
    """A step that says no (exit code 1) fails at once; a pod that was lost on the way is started again.

    The deadline bounds it. There is no rule `FailJob`: the provider does not know the reason PodFailurePolicy that it
    ends a Job with, and waits forever; a failure that counts against a limit of none is BackoffLimitExceeded.
    """
    killed = batch.v1.PodFailurePolicyOnExitCodesRequirementArgs(
        container_name="step", operator="In", values=[128 + signal.SIGKILL, 128 + signal.SIGTERM]
    )
    disrupted = batch.v1.PodFailurePolicyOnPodConditionsPatternArgs(type="DisruptionTarget", status="True")
    return batch.v1.PodFailurePolicyArgs(
        rules=[
            batch.v1.PodFailurePolicyRuleArgs(action="Ignore", on_exit_codes=killed),
            batch.v1.PodFailurePolicyRuleArgs(action="Ignore", on_pod_conditions=[disrupted]),
        ]
    )


def _pod(args: StepJobArgs, namespace: str) -> core.v1.PodSpecArgs:
    context = args.context
    volumes = [scratch("tmp", "/tmp"), *args.volumes]  # noqa: S108 - the path inside the container
    environment = {
        "RELEASE_ENVIRONMENT": context.environment,
        "RELEASE_DEPLOYMENT": str(context.deployment),
        "RELEASE_VERSION": context.version,
        "RECORDS_NAMESPACE": context.records_namespace,
        "POD_NAMESPACE": namespace,
    }
    step = core.v1.ContainerArgs(
        name="step",
        image=context.image,
        args=[str(args.step), *args.arguments],
        env=[
            *(core.v1.EnvVarArgs(name=key, value=value) for key, value in environment.items()),
            core.v1.EnvVarArgs(
                name="POD_NAME",
                value_from=core.v1.EnvVarSourceArgs(
                    field_ref=core.v1.ObjectFieldSelectorArgs(api_version="v1", field_path="metadata.name")
                ),
            ),
        ],
        resources=args.size.requirements(),
        security_context=restricted_container(),
        # The provider quotes the termination message, so a failed update shows the step's own last words.
        termination_message_policy="FallbackToLogsOnError",
        volume_mounts=[mount for _, mount in volumes],
    )
    return core.v1.PodSpecArgs(
        restart_policy="Never",
        service_account_name=str(args.step),
        security_context=restricted_pod(),
        termination_grace_period_seconds=30,
        init_containers=list(args.init_containers),
        containers=[step],
        volumes=[volume for volume, _ in volumes],
    )
