"""One workload of the platform and its rolling update: a pod more, none less, and no request lost on the way.

Leaves to others: how many pods there are (`components.capacity`), what they answer (`forecast/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes import apps, core, meta, policy

from components.labels import labels, role
from components.pods import Size, config_file, restricted_container, restricted_pod, scratch, secret_file

# Endpoints need a moment to leave every proxy; a pod that stops listening earlier loses requests.
LEAVE_SECONDS = 3
DRAIN_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class WorkloadArgs:
    """One Deployment: `module` is run by Python in `image`, `port` answers /healthz and /readyz.

    `flags` names the ConfigMap with flags.json, `database_secret` the Secret with the application's URL;
    `deadline_seconds` is how long a roll-out may take before it counts as failed.
    """

    namespace: str
    image: str
    version: str
    module: str
    port: int
    flags: pulumi.Input[str]
    database_secret: pulumi.Input[str]
    deadline_seconds: int
    environment: Mapping[str, str] = field(default_factory=dict)
    size: Size = field(default_factory=lambda: Size(cpu="100m", memory="384Mi"))


class Workload(pulumi.ComponentResource):
    """A Deployment without a number of pods, and a disruption budget.

    The number belongs to the capacity step or an autoscaler: an apply that does not name it leaves it alone.
    """

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:workload:Workload", name, None, opts)
        timeout = f"{args.deadline_seconds}s"
        apps.v1.Deployment(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=name,
                namespace=args.namespace,
                labels={**labels(name), "app.kubernetes.io/version": args.version},
            ),
            spec=apps.v1.DeploymentSpecArgs(
                selector=meta.v1.LabelSelectorArgs(match_labels=role(name)),
                strategy=apps.v1.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.v1.RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                min_ready_seconds=2,
                progress_deadline_seconds=args.deadline_seconds,
                revision_history_limit=3,
                template=core.v1.PodTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels={**labels(name), "app.kubernetes.io/version": args.version}),
                    spec=_pod(name, args),
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                # The provider does not look at the progress deadline: only its own timeout ends the wait, and it
                # leaves the Deployment as it is, the pods of the release before at full number.
                custom_timeouts=pulumi.CustomTimeouts(create=timeout, update=timeout),
            ),
        )
        policy.v1.PodDisruptionBudget(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=args.namespace, labels=labels(name)),
            spec=policy.v1.PodDisruptionBudgetSpecArgs(
                max_unavailable=1, selector=meta.v1.LabelSelectorArgs(match_labels=role(name))
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


def _pod(name: str, args: WorkloadArgs) -> core.v1.PodSpecArgs:
    volumes = [
        scratch("tmp", "/tmp"),  # noqa: S108 - the path inside the container
        secret_file("database", args.database_secret, "/run/secrets/database"),
        config_file("flags", args.flags, "/etc/forecast"),
    ]
    environment = {
        "DATABASE_URL_FILE": "/run/secrets/database/url",
        "FLAGS_FILE": "/etc/forecast/flags.json",
        "DRAIN_SECONDS": str(DRAIN_SECONDS),
        **args.environment,
    }
    return core.v1.PodSpecArgs(
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=restricted_pod(),
        termination_grace_period_seconds=LEAVE_SECONDS + DRAIN_SECONDS + 30,
        containers=[
            core.v1.ContainerArgs(
                name=name,
                image=args.image,
                command=["python3", "-m", args.module],
                env=[core.v1.EnvVarArgs(name=key, value=value) for key, value in environment.items()],
                ports=[core.v1.ContainerPortArgs(name="http", container_port=args.port)],
                startup_probe=_probe("/healthz", args.port, period=1, failures=60),
                readiness_probe=_probe("/readyz", args.port, period=2, failures=2),
                liveness_probe=_probe("/healthz", args.port, period=10, failures=3),
                lifecycle=core.v1.LifecycleArgs(
                    pre_stop=core.v1.LifecycleHandlerArgs(sleep=core.v1.SleepActionArgs(seconds=LEAVE_SECONDS))
                ),
                resources=args.size.requirements(),
                security_context=restricted_container(),
                termination_message_policy="FallbackToLogsOnError",
                volume_mounts=[mount for _, mount in volumes],
            )
        ],
        volumes=[volume for volume, _ in volumes],
    )


def _probe(path: str, port: int, *, period: int, failures: int) -> core.v1.ProbeArgs:
    return core.v1.ProbeArgs(
        http_get=core.v1.HTTPGetActionArgs(path=path, port=port),
        period_seconds=period,
        timeout_seconds=2,
        failure_threshold=failures,
    )
