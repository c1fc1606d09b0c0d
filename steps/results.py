"""The result of a step: one JSON document an attempt (a pod), kept in the ConfigMap `result-<deployment>-<step>`.

Values and their shape only; reading and writing them on the cluster is `steps.store`'s. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps import vocabulary
from steps.errors import RecordError
from steps.records import StepOutcome, canonical
from steps.vocabulary import Step, StepStatus

# A ConfigMap holds 1 MiB for all attempts together.
LOG_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One pod's run of a step; times are UTC like 2026-03-01T12:00:00Z, `data` is the step's own."""

    step: str
    deployment: int
    version: str
    attempt_pod: str
    status: StepStatus
    started: str
    finished: str | None
    reason: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""

    def text(self) -> str:
        """Canonical JSON of the attempt; the log is cut to its last 64 KiB, at a line's beginning where it can."""
        return canonical(
            {
                "step": self.step,
                "deployment": self.deployment,
                "version": self.version,
                "attempt_pod": self.attempt_pod,
                "status": str(self.status),
                "started": self.started,
                "finished": self.finished,
                "reason": self.reason,
                "data": dict(self.data),
                "log": tail(self.log),
            }
        )


def tail(log: str, limit: int = LOG_BYTES) -> str:
    """The last `limit` bytes of a text in whole lines (a single longer line is cut)."""
    raw = log.encode()
    if len(raw) <= limit:
        return log
    cut = raw[-limit:].decode(errors="ignore")
    _, newline, rest = cut.partition("\n")
    return rest if newline and rest else cut


def parse_attempt(text: str, *, what: str = "the result") -> Attempt:
    """Reads one attempt; raises RecordError when it is not one."""
    try:
        document = json.loads(text)
        return Attempt(
            step=document["step"],
            deployment=int(document["deployment"]),
            version=document["version"],
            attempt_pod=document["attempt_pod"],
            status=StepStatus(document["status"]),
            started=document["started"],
            finished=document["finished"],
            reason=document["reason"],
            data=dict(document["data"]),
            log=document["log"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"{what} cannot be read: {type(error).__name__}: {error}") from error


def config_map(attempt: Attempt, namespace: str, junit: str | None = None) -> dict[str, Any]:
    """The ConfigMap of a first attempt as a plain object; later ones only merge their `data` into it."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": vocabulary.result_name(attempt.step, attempt.deployment),
            "namespace": namespace,
            "labels": vocabulary.labels(Step(attempt.step), attempt.deployment),
        },
        "data": {
            f"{attempt.attempt_pod}.json": attempt.text(),
            **({} if junit is None else {f"{attempt.attempt_pod}.junit.xml": junit}),
        },
    }


def attempts(document: Mapping[str, Any]) -> list[Attempt]:
    """All attempts in a result's ConfigMap (JSON of the API), oldest first; raises RecordError for a damaged one."""
    name = (document.get("metadata") or {}).get("name", "the result")
    found = [
        parse_attempt(text, what=f"{key} in {name}")
        for key, text in (document.get("data") or {}).items()
        if key.endswith(".json")
    ]
    return sorted(found, key=lambda attempt: (attempt.started, attempt.attempt_pod))


def outcome(found: Sequence[Attempt]) -> StepOutcome:
    """What the record keeps of a step: the newest attempt decides, the first one began. Expects oldest first."""
    last = found[-1]
    return StepOutcome(
        status=str(last.status),
        started=found[0].started,
        finished=last.finished,
        attempts=len(found),
    )
