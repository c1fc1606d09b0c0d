"""The planned steps of a release, in their order: the gate is asked for them and the graph is wired from them.

Leaves to others: what each step is as a resource (`components.release_flow`) and what it does (`steps/`).
"""

from __future__ import annotations

from enum import StrEnum

from steps.vocabulary import Step


class Flow(StrEnum):
    """Which way a release goes through an environment."""

    STAGING = "staging"
    PRODUCTION = "production"


ROLL_OUT = "roll-out"

_PLANS: dict[Flow, tuple[str, ...]] = {
    Flow.STAGING: (
        Step.RECORD_OPEN,
        Step.ACCESS,
        Step.BACKUP,
        Step.MIGRATE,
        ROLL_OUT,
        Step.CAPACITY,
        Step.SMOKE,
        Step.BAKE,
        Step.RECORD_CLOSE,
    )
}


def plan(flow: Flow) -> tuple[str, ...]:
    """The names of the steps of `flow`, first to last."""
    return _PLANS[flow]
