"""Why an update failed, in the words of what failed: last log lines of step Jobs, what keeps pods from getting ready.

The words go to the user through the program's error hook and the command line; the last line is always the reason in
one sentence. Deciding what happens next belongs to them; the only thing done here is closing the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import httpx2
import lightkube
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import ContainerStatus
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Event, Pod

from release import cluster
from release.errors import ClusterError, ReleaseError
from steps.results import Attempt
from steps.vocabulary import (
    LABEL_DEPLOYMENT,
    LABEL_NAME,
    LABEL_PART_OF,
    LABEL_STEP,
    PART_OF,
    RecordStatus,
    Step,
    step_namespace,
)

LINES: Final = 20
# Waiting for these is normal; with anything else a container does not start by itself.
_USUAL_WAITING: Final = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One thing that failed or does not get on: its name (a step, or a workload), its last lines, the reason."""

    name: str
    lines: Sequence[str]
    reason: str

    @property
    def sentence(self) -> str:
        """Name and reason on one line, as a record keeps them; what a reason says beyond its first line is detail."""
        return f"{self.name}: {self.reason.strip().splitlines()[0] if self.reason.strip() else 'no reason was given'}"

    def text(self) -> str:
        """For people: the lines, and the reason last, in place of a last line that says it already."""
        lines = list(self.lines)
        if lines and self.reason in lines[-1]:
            lines.pop()
        return "\n".join([f"{self.name}:", *(f"  {line}" for line in [*lines, self.reason])])


def why(client: lightkube.Client, environment: str, deployment: int, name: str) -> Failure | None:
    """Why the resource `name` (a step, or a workload such as `api`) of `deployment` failed; None when nothing shows it.

    Never raises: this speaks while another error is under way, so a cluster that does not answer becomes the reason.
    """
    try:
        return next((failure for failure in find(client, environment, deployment) if failure.name == name), None)
    except ReleaseError as error:
        return Failure(name=name, lines=(), reason=f"its last log lines cannot be read: {error}")


def find(client: lightkube.Client, environment: str, deployment: int) -> list[Failure]:
    """Everything of `deployment` that failed or is stuck, steps first in their order, then workloads by name.

    Raises ClusterError when the cluster does not answer.
    """
    try:
        return [*_steps(client, environment, deployment), *_workloads(client, environment)]
    except httpx2.HTTPError as error:
        raise ClusterError(f"the cluster does not say what failed in {environment}: {error}") from error


def close(client: lightkube.Client, environment: str, deployment: int, reason: str) -> bool:
    """Close the record of `deployment` as failed when it is open; True when it was.

    A deployment that never got a record, or whose record is closed, is left alone. Raises ClusterError.
    """
    store = cluster.store(client, environment)
    entry = store.get(deployment)
    if entry is None or entry.record.status is not RecordStatus.OPEN:
        return False
    store.close(deployment, RecordStatus.FAILED, reason, datetime.now(UTC))
    return True


def _steps(client: lightkube.Client, environment: str, deployment: int) -> list[Failure]:
    jobs: dict[Step, Job] = {}
    pods: dict[Step, list[Pod]] = {}
    for namespace in dict.fromkeys(step_namespace(step, environment) for step in Step):
        for job in client.list(Job, namespace=namespace, labels={LABEL_DEPLOYMENT: str(deployment)}):
            if (step := _step(job)) is not None:
                jobs[step] = job
        for pod in client.list(Pod, namespace=namespace, labels={LABEL_DEPLOYMENT: str(deployment)}):
            if (step := _step(pod)) is not None:
                pods.setdefault(step, []).append(pod)
    results = cluster.store(client, environment).results(deployment) if jobs else {}
    found = []
    for step in Step:
        if step in jobs:
            newest_first = sorted(pods.get(step, []), key=_created, reverse=True)
            failure = _step_failure(client, step, jobs[step], newest_first, results.get(step, ()))
            if failure is not None:
                found.append(failure)
    return found


def _step_failure(
    client: lightkube.Client, step: Step, job: Job, pods: Sequence[Pod], attempts: Sequence[Attempt]
) -> Failure | None:
    conditions = (job.status.conditions if job.status else None) or []
    verdict = next((item for item in conditions if item.type == "Failed" and item.status == "True"), None)
    stuck = next((text for text in map(_pod_trouble, pods) if text), None)
    if any(item.type == "Complete" and item.status == "True" for item in conditions) or not (verdict or stuck):
        return None
    lines = next((found for found in (_log(client, pod) for pod in pods) if found), [])
    last = attempts[-1] if attempts else None
    # A Job that ran out of time takes its pods with it; their log is then in the result that they left.
    if not lines and last is not None:
        lines = [line for line in last.log.splitlines() if line.strip()][-LINES:]
    if verdict is not None and verdict.reason == "DeadlineExceeded":
        limit = job.spec.activeDeadlineSeconds if job.spec else None
        reason = f"the step did not end within its deadline of {limit} s (release:stepDeadlineSeconds)"
        if step is Step.BAKE:
            reason = f"the bake did not end within its deadline of {limit} s (release:bakeSeconds and its start)"
        # A step that never began has no log; why its pod did not start is in the events, which outlive the pod.
        if not lines and (warning := _warning(client, job)):
            reason = f"{reason}; its pod did not start: {warning}"
    elif last is not None and last.reason:
        reason = last.reason
    elif stuck is not None:
        reason = stuck
    else:
        reason = (
            lines[-1] if lines else f"{(verdict.reason if verdict else '')}: {(verdict.message if verdict else '')}"
        )
    return Failure(name=str(step), lines=lines, reason=reason)


def _warning(client: lightkube.Client, job: Job) -> str | None:
    """The last warning about a pod of `job`, None when there is none."""
    name = (job.metadata.name if job.metadata else None) or ""
    namespace = job.metadata.namespace if job.metadata else None
    found = [
        event
        for event in client.list(Event, namespace=namespace, fields={"type": "Warning"})
        if (event.involvedObject.name or "").startswith(f"{name}-") and event.message
    ]
    # "Error: ErrImagePull" says less than the message before it, which quotes the registry.
    return max((event.message or "" for event in found), key=len, default=None)


def _workloads(client: lightkube.Client, environment: str) -> list[Failure]:
    """Pods that are there to stay and are not ready, one failure a workload: that of its newest pod."""
    by_name: dict[str, list[Pod]] = {}
    for pod in client.list(Pod, namespace=environment, labels={LABEL_PART_OF: PART_OF}):
        labels = _labels(pod)
        deleted = pod.metadata is not None and pod.metadata.deletionTimestamp is not None
        if LABEL_STEP not in labels and not deleted and not _is_ready(pod):
            by_name.setdefault(labels.get(LABEL_NAME, ""), []).append(pod)
    found = []
    for name, pods in sorted(by_name.items()):
        pod = max(pods, key=_created)
        pod_name = (pod.metadata.name if pod.metadata else None) or name
        reason = _pod_trouble(pod) or "it runs but does not get ready: its readiness probe fails"
        found.append(Failure(name=name, lines=_log(client, pod), reason=f"pod {pod_name} is not ready: {reason}"))
    return found


def _pod_trouble(pod: Pod) -> str | None:
    """What keeps a pod from running, None when nothing visible does."""
    status = pod.status
    if status is None:
        return None
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"no node takes it: {condition.message}"
    containers = [*(status.initContainerStatuses or []), *(status.containerStatuses or [])]
    return next((text for text in map(_container_trouble, containers) if text), None)


def _container_trouble(container: ContainerStatus) -> str | None:
    state = container.state
    waiting = state.waiting if state else None
    if waiting is not None and waiting.reason and waiting.reason not in _USUAL_WAITING:
        last = container.lastState.terminated if container.lastState else None
        # The back-off's own message says only how long it lasts; what the container said last is the cause.
        cause = _last_line(last.message) if last and last.message else waiting.message
        code = f" after exit code {last.exitCode}" if last else ""
        return f"container {container.name} is in {waiting.reason}{code}: {cause or 'no message'}"
    ended = state.terminated if state else None
    if ended is not None and ended.exitCode != 0:
        cause = _last_line(ended.message) or ended.reason or "no message"
        return f"container {container.name} ended with exit code {ended.exitCode}: {cause}"
    return None


def _log(client: lightkube.Client, pod: Pod) -> list[str]:
    """The last lines of the pod's container that ran last, [] when there are none."""
    metadata, status = pod.metadata, pod.status
    if metadata is None or metadata.name is None or status is None:
        return []
    containers: Iterable[ContainerStatus] = [*(status.containerStatuses or []), *(status.initContainerStatuses or [])]
    for container in containers:
        try:
            lines = list(
                client.log(
                    metadata.name,
                    namespace=metadata.namespace,
                    container=container.name,
                    tail_lines=LINES,
                    newlines=False,
                )
            )
        except ApiError:
            # A container that has not started has no log, which is no error here.
            continue
        written = [line.rstrip() for line in lines if line.strip()]
        if written:
            return written
    return []


def _step(item: Job | Pod) -> Step | None:
    value = _labels(item).get(LABEL_STEP)
    return Step(value) if value in set(Step) else None


def _labels(item: Job | Pod) -> dict[str, str]:
    return (item.metadata.labels if item.metadata else None) or {}


def _created(pod: Pod) -> datetime:
    created = pod.metadata.creationTimestamp if pod.metadata else None
    return created or datetime.min.replace(tzinfo=UTC)


def _is_ready(pod: Pod) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _last_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""
