"""Labels of what is not a step: workloads, services, claims, policies."""

from __future__ import annotations

from steps.vocabulary import LABEL_NAME, LABEL_PART_OF, PART_OF

MEMBER = {LABEL_PART_OF: PART_OF}


def role(name: str) -> dict[str, str]:
    """What selects the pods of one role (`api`, `database` …) of the platform."""
    return {LABEL_NAME: name}


def labels(name: str) -> dict[str, str]:
    """The labels of an object that belongs to the role `name`."""
    return {**MEMBER, **role(name)}
