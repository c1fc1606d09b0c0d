"""Sets Deployments to their full number of pods and watches until that many are ready, or says which are not and why.

Leaves to others: the pods' template (the roll-out) and how many pods full capacity is (the stack's config).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steps.context import Context
from steps.errors import StepError
from steps.kube import Json, Source

# The Deployment's controller needs a moment to see a template that was applied just before.
SETTLE_SECONDS = 30.0
# Reasons of containers that have run and may have said something.
_HAS_RUN = ("CrashLoopBackOff", "Error", "exit code", "readiness probe")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A Deployment and how many pods it shall have."""

    name: str
    pods: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--deployment", required=True, action="append", type=wanted, metavar="NAME=PODS")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds until all pods have to be ready")


def wanted(text: str) -> Wanted:
    """Parses `api=4`; raises ValueError (as argparse wants it) for anything else."""
    name, _, pods = text.partition("=")
    if not name or not pods.isdecimal() or int(pods) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PODS with at least 1 pod, like api=4")
    return Wanted(name=name, pods=int(pods))


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"deployments": {name: {"wanted", "before", "ready"}}, "seconds"}; raises StepError when time is up."""
    return _Capacity(context, list(arguments.deployment), arguments.timeout).run()


def rollout_problem(deployment: Json) -> str | None:
    """Why a Deployment is half rolled out, None when all its pods have the current template.

    Scaling it then would multiply pods of a template that may never get ready.
    """
    metadata, status = deployment["metadata"], deployment.get("status", {})
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return "its newest template has not been seen by the controller yet"
    pods, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    if updated < pods:
        return f"{updated} of {pods} pods have the newest template"
    return None


def ready(deployment: Json, pods: int) -> bool:
    """Whether a Deployment has exactly so many pods, all of the newest template and all ready."""
    status = deployment.get("status", {})
    return (
        deployment.get("spec", {}).get("replicas") == pods
        and rollout_problem(deployment) is None
        and status.get("replicas", 0) == pods
        and status.get("readyReplicas", 0) == pods
    )


def pod_problem(pod: Json) -> str | None:
    """Why a pod is not ready, in the words of Kubernetes; None when it is ready or about to go."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = container.get("state", {})
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
            last = container.get("lastState", {}).get("terminated", {})
            code = f", last exit code {last['exitCode']}" if "exitCode" in last else ""
            message = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{waiting.get('reason', 'waiting')}{code}{message}"
        if ended and ended.get("exitCode", 0) != 0:
            return f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"
    if status.get("phase") == "Pending":
        return "its containers are still being created"
    running = any("running" in container.get("state", {}) for container in status.get("containerStatuses", ()))
    return "running, but its readiness probe does not pass" if running else f"phase {status.get('phase', 'unknown')}"


class _Capacity:
    """One run: settle, scale, watch."""

    def __init__(self, context: Context, all_wanted: list[Wanted], timeout: float) -> None:
        self._context = context
        self._wanted = {each.name: each.pods for each in all_wanted}
        self._timeout = timeout
        self._before: dict[str, int] = {}
        self._deployments: Mapping[str, Json] = {}
        self._pods: Mapping[str, Json] = {}
        self._said: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        context = self._context
        started = context.monotonic()
        with context.cluster.watch(context.namespace, Source(kind="deployments"), Source(kind="pods")) as watch:
            deadline = started + self._timeout
            settled = min(deadline, started + SETTLE_SECONDS)
            scaled = False
            seen: set[str] = set()
            while True:
                limit = deadline if scaled else settled
                change = watch.next(limit - context.monotonic())
                if change is None and context.monotonic() >= limit:
                    raise StepError(
                        self._late() if scaled else self._unsettled(),
                        data={"deployments": self._counts(), "seconds": round(context.monotonic() - started, 1)},
                    )
                if change is not None:
                    seen.add(change.kind)
                    if change.kind == "deployments":
                        self._deployments = change.items
                    else:
                        self._pods = change.items
                if seen != {"deployments", "pods"}:
                    continue
                if not scaled:
                    scaled = self._scale()
                    if not scaled:
                        continue
                self._say()
                if all(
                    ready(self._deployments.get(name, {"metadata": {}}), pods) for name, pods in self._wanted.items()
                ):
                    break
        return {"deployments": self._counts(), "seconds": round(context.monotonic() - started, 1)}

    def _target(self, name: str) -> int | None:
        value = self._deployments[name].get("spec", {}).get("replicas")
        return None if value is None else int(value)

    def _scale(self) -> bool:
        """Scales all Deployments when none is half rolled out; False while one is."""
        missing = [name for name in self._wanted if name not in self._deployments]
        if missing:
            raise StepError(
                f"there is no Deployment {', '.join(missing)} in namespace {self._context.namespace}, only: "
                f"{', '.join(sorted(self._deployments)) or 'none'}"
            )
        if any(rollout_problem(self._deployments[name]) for name in self._wanted):
            return False
        for name, pods in self._wanted.items():
            self._before[name] = self._target(name) or 0
            if self._before[name] == pods:
                self._context.log(f"{name} has its {pods} pods already")
                continue
            self._context.log(f"{name}: {self._before[name]} → {pods} pods")
            self._context.cluster.scale(self._context.namespace, name, pods)
        return True

    def _unsettled(self) -> str:
        if not self._deployments:
            return f"the Deployments of namespace {self._context.namespace} could not be listed in time"
        problems = [
            f"{name}: {problem}" for name in self._wanted if (problem := rollout_problem(self._deployments[name]))
        ]
        return (
            f"not scaled, because the roll-out is not complete ({'; '.join(problems)}): a half-rolled Deployment is "
            "never scaled; finish the roll-out or put the template back first"
        )

    def _late(self) -> str:
        lines = []
        for name, pods in self._wanted.items():
            deployment = self._deployments.get(name)
            if deployment is None:
                lines.append(f"{name} was deleted meanwhile")
            elif not ready(deployment, pods):
                count = deployment.get("status", {}).get("readyReplicas", 0)
                problems = list(self._problems(deployment))
                lines.append(f"{name}: {count} of {pods} pods ready" + "".join(f"\n  {each}" for each in problems))
        head = "; ".join(line.splitlines()[0] for line in lines)
        first = next((line.splitlines()[1].strip() for line in lines if "\n" in line), "")
        summary = f"not ready after {self._timeout:.0f} s: {head}" + (f"; {first}" if first else "")
        return "\n".join([summary, *lines])

    def _problems(self, deployment: Json) -> Iterable[str]:
        """One line for each pod that is not ready, with the last thing it said."""
        for name, pod in sorted(self._of(deployment).items()):
            problem = pod_problem(pod)
            if problem is None:
                continue
            containers = pod.get("spec", {}).get("containers", [])
            said = None
            if containers and any(word in problem for word in _HAS_RUN):
                said = self._context.cluster.last_log_line(self._context.namespace, name, containers[0]["name"])
            yield f"{name}: {problem}" + (f"; last log line: {said}" if said else "")

    def _of(self, deployment: Json) -> dict[str, Json]:
        selector = deployment.get("spec", {}).get("selector", {}).get("matchLabels", {})
        return {
            name: pod
            for name, pod in self._pods.items()
            if selector and selector.items() <= pod["metadata"].get("labels", {}).items()
        }

    def _counts(self) -> dict[str, dict[str, int]]:
        return {
            name: {
                "wanted": pods,
                "before": self._before.get(name, 0),
                "ready": int(self._deployments.get(name, {}).get("status", {}).get("readyReplicas", 0)),
            }
            for name, pods in self._wanted.items()
        }

    def _say(self) -> None:
        for name, pods in self._wanted.items():
            count = self._deployments.get(name, {}).get("status", {}).get("readyReplicas", 0)
            line = f"{name}: {count} of {pods} pods ready"
            if self._said.get(name) != line:
                self._context.log(line)
                self._said[name] = line
