"""Which deployment an update is: properties over all histories, and the directions by example."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from release.deployment import Deployment, Direction, decide
from release.manifest import parse_version


@dataclass(frozen=True, kw_only=True)
class Recorded:
    deployment: int
    status: str
    version: str
    inputs: str


VERSIONS = ["1.0.0", "1.1.0", "1.1.1", "1.2.0-rc.1", "1.2.0", "1.10.0", "2.0.0"]
INPUTS = ["a", "b", "c"]


@st.composite
def histories(draw: st.DrawFn) -> list[Recorded]:
    """Records 1…n as a chain has them: only the newest may be open."""
    count = draw(st.integers(0, 6))
    found = []
    for number in range(1, count + 1):
        statuses = ["healthy", "failed", "open"] if number == count else ["healthy", "failed"]
        found.append(
            Recorded(
                deployment=number,
                status=draw(st.sampled_from(statuses)),
                version=draw(st.sampled_from(VERSIONS)),
                inputs=draw(st.sampled_from(INPUTS)),
            )
        )
    return found


updates = {"records": histories(), "inputs": st.sampled_from(INPUTS), "version": st.sampled_from(VERSIONS)}


@given(**updates)
def test_a_number_is_kept_exactly_when_there_is_something_to_go_on_with(
    records: list[Recorded], inputs: str, version: str
) -> None:
    decided = decide(records, inputs, version)
    newest = records[-1] if records else None
    adoptable = newest is not None and newest.status in ("open", "healthy") and newest.inputs == inputs
    assert decided.number == len(records) + (0 if adoptable else 1)
    assert decided.resumes == (adoptable and newest is not None and newest.status == "open")
    assert decided.settled == (adoptable and newest is not None and newest.status == "healthy")


@given(**updates)
def test_run_again_it_is_the_same_deployment_whether_it_was_cut_off_or_has_ended(
    records: list[Recorded], inputs: str, version: str
) -> None:
    first = decide(records, inputs, version)
    for status in ("open", "healthy"):
        record = Recorded(deployment=first.number, status=status, version=version, inputs=inputs)
        again = decide([item for item in records if item.deployment < first.number] + [record], inputs, version)
        assert again == replace(first, resumes=status == "open", settled=status == "healthy")


@given(**updates)
def test_after_a_failure_everything_runs_again_under_the_next_number(
    records: list[Recorded], inputs: str, version: str
) -> None:
    first = decide(records, inputs, version)
    failed = Recorded(deployment=first.number, status="failed", version=version, inputs=inputs)
    again = decide([item for item in records if item.deployment < first.number] + [failed], inputs, version)
    assert (again.number, again.resumes, again.settled) == (first.number + 1, False, False)
    assert again.direction == first.direction


@given(random=st.randoms(use_true_random=False), **updates)
def test_the_order_in_which_records_are_read_does_not_matter(
    random: Random, records: list[Recorded], inputs: str, version: str
) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)
    assert decide(shuffled, inputs, version) == decide(records, inputs, version)


@given(**updates)
def test_only_a_version_that_was_healthy_here_and_is_below_what_runs_is_a_rollback(
    records: list[Recorded], inputs: str, version: str
) -> None:
    decided = decide(records, inputs, version)
    healthy = [item.version for item in records if item.status == "healthy" and item.deployment < decided.number]
    below = bool(healthy) and parse_version(version) < parse_version(healthy[-1])
    assert (decided.direction is Direction.ROLLBACK) == (version in healthy and below)
    assert (decided.direction is Direction.RELEASE) == (version not in healthy)
    assert decided.before == (healthy[-1] if healthy else None)


def chain(*steps: tuple[str, str]) -> list[Recorded]:
    return [
        Recorded(deployment=number, status=status, version=version, inputs=f"{version}#{number}")
        for number, (version, status) in enumerate(steps, start=1)
    ]


@pytest.mark.parametrize(
    ("records", "version", "direction", "before"),
    [
        (chain(), "1.0.0", Direction.RELEASE, None),
        (chain(("1.0.0", "healthy")), "1.1.0", Direction.RELEASE, "1.0.0"),
        (chain(("1.0.0", "healthy")), "1.0.0", Direction.REDEPLOY, "1.0.0"),
        (chain(("1.0.0", "healthy"), ("1.1.0", "healthy")), "1.0.0", Direction.ROLLBACK, "1.1.0"),
        # A release that never got healthy here may not slip past the gate as a rollback.
        (chain(("1.0.0", "failed"), ("1.1.0", "healthy")), "1.0.0", Direction.RELEASE, "1.1.0"),
        (chain(("1.0.0", "healthy"), ("1.1.0", "failed")), "1.0.0", Direction.REDEPLOY, "1.0.0"),
        (chain(("1.0.0", "healthy"), ("1.1.0", "open")), "1.0.0", Direction.REDEPLOY, "1.0.0"),
        # After a rollback the newer one is above what runs, and known here.
        (chain(("1.0.0", "healthy"), ("1.1.0", "healthy"), ("1.0.0", "healthy")), "1.1.0", Direction.REDEPLOY, "1.0.0"),
        # By precedence, not by text: 1.10.0 is above 1.2.0, a pre-release below its release.
        (chain(("1.2.0", "healthy"), ("1.10.0", "healthy")), "1.2.0", Direction.ROLLBACK, "1.10.0"),
        (chain(("1.2.0-rc.1", "healthy"), ("1.2.0", "healthy")), "1.2.0-rc.1", Direction.ROLLBACK, "1.2.0"),
    ],
)
def test_directions(records: list[Recorded], version: str, direction: Direction, before: str | None) -> None:
    assert decide(records, "new", version) == Deployment(
        number=len(records) + 1, resumes=False, settled=False, direction=direction, before=before
    )
