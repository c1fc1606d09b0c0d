"""How the step Jobs of a deployment stand in the cluster, so that an update adopts, repeats or leaves them.

Leaves to others: what is done about it (`components.step_job`).
"""

from __future__ import annotations

from enum import StrEnum

import httpx2
from lightkube import Client
from lightkube.resources.batch_v1 import Job

from release.errors import ClusterError
from steps.vocabulary import LABEL_DEPLOYMENT, LABEL_STEP, Step, step_namespace


class JobState(StrEnum):
    """Where a Job stands; one that is being deleted counts as running."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"


def job_states(client: Client, environment: str, deployment: int) -> dict[Step, JobState]:
    """The step Jobs of `deployment` that exist, by step. Raises ClusterError when the cluster does not answer."""
    states: dict[Step, JobState] = {}
    try:
        for namespace in dict.fromkeys(step_namespace(step, environment) for step in Step):
            for job in client.list(Job, namespace=namespace, labels={LABEL_DEPLOYMENT: str(deployment)}):
                labels = (job.metadata.labels if job.metadata else None) or {}
                if labels.get(LABEL_STEP) in set(Step):
                    states[Step(labels[LABEL_STEP])] = _state(job)
    except httpx2.HTTPError as error:
        raise ClusterError(f"the step Jobs of {environment} cannot be read: {error}") from error
    return states


def _state(job: Job) -> JobState:
    conditions = (job.status.conditions if job.status else None) or []
    held = {condition.type for condition in conditions if condition.status == "True"}
    if "Failed" in held:
        return JobState.FAILED
    return JobState.PASSED if "Complete" in held else JobState.RUNNING
