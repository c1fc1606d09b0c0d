"""The gate: the first resource of every update. Everything else depends on it, so nothing exists before it is judged.

Its inputs are what a policy judges: the release, the environment, the planned steps. Leaves to others: the judging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class GateArgs:
    """Plain known values only: a verdict or a time here would make every preview a change.

    `manifest` is the sha256 (hex) of release.yaml, `images` maps names to references by digest, `plan` names the steps
    in their order.
    """

    environment: str
    version: str
    manifest: str
    images: Mapping[str, str]
    direction: str
    plan: Sequence[str]


class Gate(pulumi.ComponentResource):
    """Stands for the permission to open a deployment."""

    manifest: pulumi.Output[str]

    def __init__(self, name: str, args: GateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:Gate", name, {**asdict(args), "plan": list(args.plan)}, opts)
        self.manifest = pulumi.Output.from_input(args.manifest)
        self.register_outputs({"manifest": self.manifest})
