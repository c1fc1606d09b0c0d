"""Records and results on the cluster: list, read, open, close, write; conflicts are refused, never overwritten.

The format is `steps.records`' and `steps.results`'; who may close which record, and when, is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import lightkube

from steps import records, results, vocabulary
from steps.errors import RecordError
from steps.kube import Cluster
from steps.records import Entry, Opening, Record, Schema, StepOutcome
from steps.results import Attempt
from steps.vocabulary import RecordStatus, Step

# Two writers at most: a step's Job and a command line that gave up on it.
_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a record takes over from the results of its steps."""

    steps: Mapping[str, StepOutcome] = field(default_factory=dict)
    schema: Schema = field(default_factory=Schema)
    backup: Mapping[str, Any] | None = None


def summarize(found: Mapping[str, Sequence[Attempt]]) -> Summary:
    """Condenses all attempts of all steps (oldest first); a migration's `before` is its first attempt's."""
    backups = [attempt.data["backup"] for attempt in found.get(Step.BACKUP, ()) if attempt.data.get("backup")]
    migrations = [attempt.data for attempt in found.get(Step.MIGRATE, ()) if "before" in attempt.data]
    return Summary(
        steps={step: results.outcome(list(attempts)) for step, attempts in found.items() if attempts},
        schema=Schema(
            before=migrations[0]["before"] if migrations else None,
            after=migrations[-1].get("after") if migrations else None,
        ),
        backup=backups[-1] if backups else None,
    )


class RecordStore:
    """The records of one environment. Errors: RecordError for what may not be, ClusterError when the API fails."""

    def __init__(self, client: lightkube.Client, environment: str, *, patience: float = 60.0) -> None:
        """`patience`: seconds for which a call is repeated while the API cannot answer."""
        self.environment = environment
        self.namespace = vocabulary.records_namespace(environment)
        self.cluster = Cluster(client, patience=patience)

    def list(self) -> Sequence[Entry]:
        """All records, oldest first; empty when there is no namespace yet."""
        found = self.cluster.config_maps(self.namespace, {vocabulary.LABEL_RECORD: "true"})
        return sorted(
            (records.entry(document) for document in found),
            key=lambda entry: entry.deployment,
        )

    def get(self, deployment: int) -> Entry | None:
        """One record, None when there is none."""
        document = self.cluster.config_map(self.namespace, vocabulary.record_name(deployment))
        return None if document is None else records.entry(document)

    def results(self, deployment: int) -> Mapping[str, Sequence[Attempt]]:
        """All attempts of all steps of a deployment, by step, oldest first."""
        found = self.cluster.config_maps(self.namespace, {vocabulary.LABEL_DEPLOYMENT: str(deployment)})
        by_step: dict[str, Sequence[Attempt]] = {}
        for document in found:
            labels = document["metadata"].get("labels", {})
            step = labels.get(vocabulary.LABEL_STEP)
            if step is not None and document["metadata"]["name"] == vocabulary.result_name(step, deployment):
                by_step[step] = results.attempts(document)
        return {step: attempts for step, attempts in sorted(by_step.items()) if attempts}

    def open(self, opening: Opening, manifest: str, now: datetime) -> Entry:
        """Writes record N as open; the same inputs again change nothing, whether it is open or already healthy.

        Raises RecordError when N exists with other inputs or failed, or when N does not follow the newest record.
        """
        number = opening.deployment
        for _ in range(_TRIES):
            entries = {entry.deployment: entry for entry in self.list()}
            existing = entries.get(number)
            if existing is not None:
                return self._adopt(existing, opening)
            newest = entries[max(entries)].link() if entries else None
            record = records.open_record(opening, newest, now)
            if self.cluster.create_config_map(records.config_map(record, manifest, self.namespace)):
                created = self.get(number)
                if created is not None:
                    return created
        raise RecordError(f"record {number} could not be opened: it kept changing; run the same command again")

    def _adopt(self, existing: Entry, opening: Opening) -> Entry:
        record = existing.record
        number = existing.deployment
        if record.inputs != opening.inputs:
            raise RecordError(
                f"deployment {number} is already used for {record.version} ({record.status}) with other inputs "
                f"({record.inputs[:12]}…, not {opening.inputs[:12]}…): another update came first, "
                "run the same command again"
            )
        if record.status is RecordStatus.FAILED:
            raise RecordError(
                f"deployment {number} is already closed as failed ({record.reason}): run the same command again, "
                "it takes the next number"
            )
        return existing

    def close(self, deployment: int, status: RecordStatus, reason: str | None, now: datetime) -> Entry:
        """Closes a record with what the results of its steps say, seals it and makes it immutable.

        Closing it again with the same status changes nothing. Raises RecordError when it is missing, or closed
        otherwise.
        """
        for _ in range(_TRIES):
            entry = self.get(deployment)
            if entry is None:
                raise RecordError(f"there is no record {deployment} in namespace {self.namespace}")
            record = entry.record
            if record.status is status:
                return entry
            summary = summarize(self.results(deployment))
            closed = records.close_record(
                record,
                status=status,
                reason=reason,
                now=now,
                schema=summary.schema,
                backup=summary.backup,
                steps=summary.steps,
            )
            if self._write(entry, closed):
                after = self.get(deployment)
                if after is not None:
                    return after
        raise RecordError(f"record {deployment} could not be closed: it kept changing; run the same command again")

    def _write(self, entry: Entry, record: Record) -> bool:
        document = records.config_map(record, entry.manifest, self.namespace)
        metadata = document["metadata"]
        return self.cluster.patch_config_map(
            self.namespace,
            metadata["name"],
            {
                "metadata": {
                    "resourceVersion": entry.resource_version,
                    "labels": metadata["labels"],
                    "annotations": metadata["annotations"],
                },
                "data": document["data"],
                "immutable": document.get("immutable", False),
            },
        )


class ResultStore:
    """The result of one step of one deployment; needs nothing but create, and get and patch of that one name."""

    def __init__(self, cluster: Cluster, namespace: str, step: Step, deployment: int) -> None:
        """`namespace` is the one with the records."""
        self.cluster = cluster
        self.namespace = namespace
        self.name = vocabulary.result_name(step, deployment)

    def attempts(self) -> list[Attempt]:
        """The attempts so far, oldest first."""
        document = self.cluster.config_map(self.namespace, self.name)
        return [] if document is None else results.attempts(document)

    def write(self, attempt: Attempt, junit: str | None = None) -> None:
        """Writes an attempt beside the others, over an earlier state of the same pod's."""
        document = results.config_map(attempt, self.namespace, junit)
        # Create first: RBAC lets a step patch only its own result's name, and create no name in particular.
        if not self.cluster.create_config_map(document):
            self.cluster.patch_config_map(self.namespace, self.name, {"data": document["data"]})
