"""Capacity: how many pods each Deployment has. The Deployments themselves do not say; this step owns the number.

Leaves to others: the Deployments and their templates (`components.service`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step


@dataclass(frozen=True, kw_only=True)
class CapacityArgs:
    """`pods` maps a Deployment's name to its number of pods at full capacity; `timeout_seconds` to get them ready."""

    context: StepContext
    pods: Mapping[str, int]
    timeout_seconds: int

    def __post_init__(self) -> None:
        empty = [name for name, count in self.pods.items() if count < 1]
        if empty:
            raise ValueError(f"full capacity of {', '.join(empty)} would be no pod at all; configure at least 1")


class Capacity(pulumi.ComponentResource):
    """Brings every Deployment to 100 % of its configured pods and waits until they are ready."""

    def __init__(self, name: str, args: CapacityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:Capacity", name, None, opts)
        StepJob(
            str(Step.CAPACITY),
            StepJobArgs(
                context=args.context,
                step=Step.CAPACITY,
                arguments=[
                    *(f"--deployment={deployment}={count}" for deployment, count in args.pods.items()),
                    f"--timeout={args.timeout_seconds}",
                ],
                # The step's own clock must run out first: its message names the pods that are not ready.
                deadline_seconds=args.timeout_seconds + 60,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
