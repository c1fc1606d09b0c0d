"""Who may do what in the database: the application's role with its password, and its grants.

Leaves to others: the roles' passwords (stack config), the schema (`components.migration`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.database import APPLICATION
from components.pods import secret_file
from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step


@dataclass(frozen=True, kw_only=True)
class AccessArgs:
    """Names of the Secrets with the owner's URL and the application's password."""

    context: StepContext
    owner_secret: pulumi.Input[str]
    application_secret: pulumi.Input[str]


class Access(pulumi.ComponentResource):
    """Gives the application's role its password and its grants; runs again when the password changes."""

    def __init__(self, name: str, args: AccessArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:Access", name, None, opts)
        StepJob(
            str(Step.ACCESS),
            StepJobArgs(
                context=args.context,
                step=Step.ACCESS,
                arguments=[
                    "--owner-url-file=/run/secrets/owner/url",
                    f"--app-user={APPLICATION}",
                    "--app-password-file=/run/secrets/application/password",
                ],
                volumes=[
                    secret_file("owner", args.owner_secret, "/run/secrets/owner"),
                    secret_file("application", args.application_secret, "/run/secrets/application"),
                ],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
