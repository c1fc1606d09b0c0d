"""Which deployment an update is: its number, whether it goes on with an earlier one, and its direction.

A pure function of the records and the inputs' hash; reading the records belongs to `release.history`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from release.manifest import parse_version


class Direction(StrEnum):
    """What an update is, seen from the environment it goes to."""

    RELEASE = "release"
    REDEPLOY = "redeploy"
    ROLLBACK = "rollback"


class Recorded(Protocol):
    """What is needed of a record here (see `steps.records`)."""

    @property
    def deployment(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def inputs(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The deployment of one update.

    `resumes`: the newest record is open with the same inputs, its Jobs are adopted. `settled`: it is healthy with the
    same inputs, so nothing is to be done. `before`: the version healthy before it, None on a fresh environment.
    """

    number: int
    resumes: bool
    settled: bool
    direction: Direction
    before: str | None


def decide(records: Iterable[Recorded], inputs: str, version: str) -> Deployment:
    """Number and direction for `version` with the inputs' hash `inputs`, given all records of the environment.

    The newest record open or healthy with the same inputs gives its own number; anything else the next one.
    """
    ordered = sorted(records, key=lambda record: record.deployment)
    newest = ordered[-1] if ordered else None
    same = newest is not None and newest.inputs == inputs
    resumes = same and newest is not None and newest.status == "open"
    settled = same and newest is not None and newest.status == "healthy"
    number = (newest.deployment if newest else 0) + (0 if resumes or settled else 1)
    # Only what came before counts: run again, a deployment has to have the direction that it had at first.
    healthy = [record for record in ordered if record.status == "healthy" and record.deployment < number]
    return Deployment(
        number=number,
        resumes=resumes,
        settled=settled,
        direction=_direction(healthy, version),
        before=healthy[-1].version if healthy else None,
    )


def _direction(healthy: list[Recorded], version: str) -> Direction:
    if not any(record.version == version for record in healthy):
        return Direction.RELEASE
    if parse_version(version) < parse_version(healthy[-1].version):
        return Direction.ROLLBACK
    return Direction.REDEPLOY
