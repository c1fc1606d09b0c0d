"""Verification of what was rolled out: smoke tests against the service as its users reach it.

Leaves to others: the bake, which watches for longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step


@dataclass(frozen=True, kw_only=True)
class VerificationArgs:
    """`url` is the service's address inside the cluster."""

    context: StepContext
    url: str


class Verification(pulumi.ComponentResource):
    """Healthy, ready, the right version, and a reading that goes in comes out in a forecast."""

    def __init__(self, name: str, args: VerificationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:Verification", name, None, opts)
        StepJob(
            str(Step.SMOKE),
            StepJobArgs(
                context=args.context,
                step=Step.SMOKE,
                arguments=[f"--url={args.url}", f"--version={args.context.version}"],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
