"""The schema's expanding migrations: run before the roll-out, so they suit the release before as well.

Leaves to others: contracting ones, which come days later in an update of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core

from components.pods import Size, restricted_container, scratch, secret_file
from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step


@dataclass(frozen=True, kw_only=True)
class MigrationArgs:
    """`image` is the release's image, which carries its migrations; `target` the schema revision it needs."""

    context: StepContext
    image: str
    target: str
    owner_secret: pulumi.Input[str]
    lock_timeout_milliseconds: int


class Migration(pulumi.ComponentResource):
    """Brings the schema up to `target`; never down."""

    def __init__(self, name: str, args: MigrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:Migration", name, None, opts)
        volume, mount = scratch("migrations", "/migrations")
        scripts = core.v1.ContainerArgs(
            name="scripts",
            image=args.image,
            command=["python3", "-m", "energy_forecast.migrations", "/migrations"],
            resources=Size().requirements(),
            security_context=restricted_container(),
            termination_message_policy="FallbackToLogsOnError",
            volume_mounts=[mount],
        )
        StepJob(
            str(Step.MIGRATE),
            StepJobArgs(
                context=args.context,
                step=Step.MIGRATE,
                arguments=[
                    "--database-url-file=/run/secrets/database/url",
                    "--migrations=/migrations",
                    f"--target={args.target}",
                    f"--lock-timeout-ms={args.lock_timeout_milliseconds}",
                ],
                volumes=[secret_file("database", args.owner_secret, "/run/secrets/database"), (volume, mount)],
                init_containers=[scripts],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
