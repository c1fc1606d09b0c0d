"""The bake: a synthetic client's errors and latency have to stay within bounds for the configured time.

Leaves to others: what the cluster's own metrics say.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step


@dataclass(frozen=True, kw_only=True)
class BakeArgs:
    """`seconds` to bake, `rate` requests per second, the largest share of errors and 99th percentile (milliseconds)."""

    context: StepContext
    url: str
    seconds: int
    rate: float
    max_error_rate: float
    max_p99_milliseconds: int
    deadline_seconds: int

    def __post_init__(self) -> None:
        if self.deadline_seconds <= self.seconds:
            raise ValueError(
                f"a bake of {self.seconds} s with a deadline of {self.deadline_seconds} s would always fail; "
                "leave room for its start"
            )


class Bake(pulumi.ComponentResource):
    """Watches the release for a while; a bake that was cut off goes on where it was."""

    def __init__(self, name: str, args: BakeArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:Bake", name, None, opts)
        StepJob(
            str(Step.BAKE),
            StepJobArgs(
                context=args.context,
                step=Step.BAKE,
                arguments=[
                    f"--url={args.url}",
                    f"--seconds={args.seconds}",
                    f"--rate={args.rate}",
                    f"--max-error-rate={args.max_error_rate}",
                    f"--max-p99-ms={args.max_p99_milliseconds}",
                ],
                deadline_seconds=args.deadline_seconds,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
