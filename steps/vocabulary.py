"""Names and labels on the cluster that steps, components and the command line must spell alike.

Leaves to others what the names are used for. Standard library only.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum

PART_OF = "energy-forecast"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_DEPLOYMENT = "release.energy/deployment"
LABEL_STEP = "release.energy/step"
LABEL_RECORD = "release.energy/record"
LABEL_STATUS = "release.energy/status"
ANNOTATION_SHA256 = "release.energy/sha256"

# A Job's name becomes a label of its pods, and labels end at 63 characters.
LONGEST_NAME = 63


class Scope(StrEnum):
    """Which of an environment's two namespaces is meant."""

    ENVIRONMENT = "environment"
    RECORDS = "records"


class Step(StrEnum):
    """The steps of a release in their order; the values are the image's arguments and part of every name."""

    RECORD_OPEN = "record-open"
    ACCESS = "access"
    BACKUP = "backup"
    MIGRATE = "migrate"
    CAPACITY = "capacity"
    SMOKE = "smoke"
    BAKE = "bake"
    RECORD_CLOSE = "record-close"

    @property
    def home(self) -> Scope:
        """Where the step's Job runs: beside the records for `record-*`, beside the workloads otherwise."""
        return Scope.RECORDS if self in {Step.RECORD_OPEN, Step.RECORD_CLOSE} else Scope.ENVIRONMENT


class RecordStatus(StrEnum):
    """Where a deployment stands; `open` is the only one that may change."""

    OPEN = "open"
    HEALTHY = "healthy"
    FAILED = "failed"


class StepStatus(StrEnum):
    """How one attempt of a step ended; `running` is a bake's checkpoint, left behind when its pod was killed."""

    PASSED = "passed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RUNNING = "running"


def records_namespace(environment: str) -> str:
    """The namespace with the records of an environment."""
    return f"{environment}-records"


def namespace(scope: Scope, environment: str) -> str:
    """The namespace of an environment that a scope means."""
    return records_namespace(environment) if scope is Scope.RECORDS else environment


def step_namespace(step: Step, environment: str) -> str:
    """The namespace in which a step's Job runs."""
    return namespace(step.home, environment)


def job_name(step: Step, deployment: int, version: str) -> str:
    """`migrate-17-1-3-0`: a DNS label; a version too long for one ends in a hash of itself."""
    slug = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    name = f"{step}-{deployment}-{slug}"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(version.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9].rstrip('-')}-{digest}"


def record_name(deployment: int) -> str:
    """The ConfigMap of a record; padded, so that names sort as numbers do."""
    return f"record-{deployment:06d}"


def result_name(step: str, deployment: int) -> str:
    """The ConfigMap of a step's result: `result-17-migrate`."""
    return f"result-{deployment}-{step}"


def labels(step: Step, deployment: int) -> dict[str, str]:
    """The labels of a step's Job, its pods and its result."""
    return {
        LABEL_PART_OF: PART_OF,
        LABEL_NAME: str(step),
        LABEL_DEPLOYMENT: str(deployment),
        LABEL_STEP: str(step),
    }


def application_name(step: Step, deployment: int) -> str:
    """What a step calls itself towards PostgreSQL, seen in pg_stat_activity."""
    return f"release/{step}/{deployment}"
