"""The one place of the record's format: document, canonical JSON, seal, chain and ConfigMap shape.

Pure functions on values: no cluster (`steps.store`), no clock (an argument), no third-party package, because the steps,
the command line and the Pulumi program all read records through it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from steps import vocabulary
from steps.errors import RecordError
from steps.vocabulary import RecordStatus

FORMAT = 1
RECORD_KEY = "record.json"
MANIFEST_KEY = "release.yaml"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_IMAGE = re.compile(r"@sha256:[0-9a-f]{64}$")
_NAME = re.compile(r"record-(\d{6,})")
_OPENING_KEYS = frozenset(
    {
        "format",
        "environment",
        "deployment",
        "version",
        "type",
        "inputs",
        "manifest",
        "images",
        "flags",
        "who",
    }
)
_RECORD_KEYS = _OPENING_KEYS | {
    "status",
    "opened",
    "closed",
    "reason",
    "schema",
    "backup",
    "steps",
    "previous",
}


def canonical(document: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8, no NaN. The same content is always the same text."""
    return json.dumps(
        document,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def sha256(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def timestamp(moment: datetime) -> str:
    """`2026-03-01T12:00:00Z`; refuses a moment without a time zone, which would be guessed otherwise."""
    if moment.tzinfo is None:
        raise RecordError(f"the time {moment.isoformat()} has no time zone; pass datetime.now(UTC)")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, kw_only=True)
class Link:
    """Points at a closed record by number and by the hash of its text; also the chain's head in the stack's state."""

    deployment: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What is known before a deployment starts, made by the program; no time in it, so an unchanged update has no diff.

    `inputs` is the SHA-256 of everything the deployment is made from; `images` maps name to `ref@sha256:…`.
    """

    environment: str
    deployment: int
    version: str
    type: str
    inputs: str
    manifest_sha256: str
    images: Mapping[str, str]
    flags_sha256: str
    who: str

    def document(self) -> dict[str, Any]:
        """The JSON document, as mounted into the step `record-open`."""
        return {
            "format": FORMAT,
            "environment": self.environment,
            "deployment": self.deployment,
            "version": self.version,
            "type": self.type,
            "inputs": self.inputs,
            "manifest": {"sha256": self.manifest_sha256},
            "images": dict(self.images),
            "flags": {"sha256": self.flags_sha256},
            "who": self.who,
        }

    def text(self) -> str:
        """Canonical JSON of the document."""
        return canonical(self.document())


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """How a step of a deployment ended, over all its attempts; times as in the record."""

    status: str
    started: str
    finished: str | None
    attempts: int

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "status": self.status,
            "started": self.started,
            "finished": self.finished,
            "attempts": self.attempts,
        }


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The database's revision before and after the deployment; None where it is not known or there is none."""

    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One deployment: what went in, how it ended, and the record before it."""

    opening: Opening
    status: RecordStatus
    opened: str
    closed: str | None = None
    reason: str | None = None
    schema: Schema = field(default_factory=Schema)
    backup: Mapping[str, Any] | None = None
    steps: Mapping[str, StepOutcome] = field(default_factory=dict)
    previous: Link | None = None

    @property
    def deployment(self) -> int:
        """The deployment's number."""
        return self.opening.deployment

    @property
    def version(self) -> str:
        """The release's version."""
        return self.opening.version

    @property
    def environment(self) -> str:
        """The environment's name."""
        return self.opening.environment

    @property
    def inputs(self) -> str:
        """SHA-256 of the deployment's inputs."""
        return self.opening.inputs

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        previous = self.previous
        return {
            **self.opening.document(),
            "status": str(self.status),
            "opened": self.opened,
            "closed": self.closed,
            "reason": self.reason,
            "schema": {"before": self.schema.before, "after": self.schema.after},
            "backup": None if self.backup is None else dict(self.backup),
            "steps": {name: outcome.document() for name, outcome in self.steps.items()},
            "previous": None if previous is None else {"deployment": previous.deployment, "sha256": previous.sha256},
        }

    def text(self) -> str:
        """Canonical JSON of the document: what is stored and hashed."""
        return canonical(self.document())


def open_record(opening: Opening, previous: Link | None, now: datetime) -> Record:
    """The open record that follows `previous` (the newest one, see `Entry.link`; None on a fresh environment).

    Raises RecordError when `previous` does not have the number before.
    """
    check_next(opening, 0 if previous is None else previous.deployment)
    return Record(opening=opening, status=RecordStatus.OPEN, opened=timestamp(now), previous=previous)


def check_next(opening: Opening, newest: int) -> None:
    """Raises RecordError unless the opening's number is the one after `newest` (0: there is no record yet)."""
    if opening.deployment != newest + 1:
        state = f"the newest record is {newest}" if newest else "there is no record yet"
        raise RecordError(
            f"deployment {opening.deployment} cannot be opened: {state}, so the next number is {newest + 1}; "
            "another update came in between: run the same command again"
        )


def close_record(
    record: Record,
    *,
    status: RecordStatus,
    reason: str | None,
    now: datetime,
    schema: Schema | None = None,
    backup: Mapping[str, Any] | None = None,
    steps: Mapping[str, StepOutcome] | None = None,
) -> Record:
    """The closed record; `reason` is required when it failed and must be absent when it is healthy.

    What is None stays as it was. Raises RecordError when the record is closed already.
    """
    if record.status is not RecordStatus.OPEN:
        raise RecordError(f"record {record.deployment} is closed already ({record.status}, {record.closed})")
    if status is RecordStatus.OPEN:
        raise RecordError(f"record {record.deployment} can be closed as healthy or failed, not as open")
    if (status is RecordStatus.FAILED) != bool(reason):
        wanted = "needs a reason" if status is RecordStatus.FAILED else "has no reason"
        raise RecordError(f"record {record.deployment} cannot be closed: {status} {wanted}, got {reason!r}")
    return Record(
        opening=record.opening,
        status=status,
        opened=record.opened,
        closed=timestamp(now),
        reason=reason,
        schema=record.schema if schema is None else schema,
        backup=record.backup if backup is None else backup,
        steps=record.steps if steps is None else steps,
        previous=record.previous,
    )


class _Reader:
    """Reads a JSON object field by field and gathers every problem with its path."""

    def __init__(
        self,
        document: Mapping[str, Any],
        known: frozenset[str],
        problems: list[str],
        path: str = "",
    ) -> None:
        self.document = document
        self.problems = problems
        self.path = path
        for key in sorted(set(document) - known):
            self.problem(key, f"not a field of format {FORMAT}")
        for key in sorted(known - set(document)):
            self.problem(key, "missing")

    def problem(self, key: str, message: str) -> None:
        self.problems.append(f"{self.path}{key}: {message}")

    def text(self, key: str) -> str:
        value = self.document.get(key)
        if isinstance(value, str) and value:
            return value
        if key in self.document:
            self.problem(key, f"expected a text that is not empty, got {value!r}")
        return ""

    def number(self, key: str) -> int:
        value = self.document.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return value
        if key in self.document:
            self.problem(key, f"expected a whole number from 1, got {value!r}")
        return 0

    def pattern(self, key: str, expression: re.Pattern[str], what: str) -> str:
        value = self.document.get(key)
        if isinstance(value, str) and expression.fullmatch(value):
            return value
        if key in self.document:
            self.problem(key, f"expected {what}, got {value!r}")
        return ""

    def digest(self, key: str) -> str:
        return self.pattern(key, _SHA256, "64 hexadecimal digits (SHA-256)")

    def time(self, key: str) -> str:
        return self.pattern(key, _TIME, "a UTC time like 2026-03-01T12:00:00Z")

    def present(self, key: str) -> bool:
        return self.document.get(key) is not None

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.document.get(key)
        if isinstance(value, dict):
            return value
        if key in self.document:
            self.problem(key, f"expected an object, got {value!r}")
        return {}

    def nested(self, key: str, known: frozenset[str]) -> _Reader:
        inner = self.mapping(key)
        # What is missing inside an object that is itself missing would only repeat the first complaint.
        fields = known if isinstance(self.document.get(key), dict) else frozenset[str]()
        return _Reader(inner, fields, self.problems, f"{self.path}{key}.")


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RecordError(f"{what} is not a JSON object but {type(document).__name__}")
    form = document.get("format")
    if form != FORMAT:
        raise RecordError(
            f"{what} has format {form!r}, this program reads format {FORMAT}: use the program that wrote it"
        )
    return document


def _opening(reader: _Reader) -> Opening:
    images = {str(name): ref for name, ref in reader.mapping("images").items()}
    for name, ref in images.items():
        if not isinstance(ref, str) or not _IMAGE.search(ref):
            reader.problem(
                f"images.{name}",
                f"expected a reference that ends in @sha256:…, got {ref!r}",
            )
    return Opening(
        environment=reader.text("environment"),
        deployment=reader.number("deployment"),
        version=reader.text("version"),
        type=reader.text("type"),
        inputs=reader.digest("inputs"),
        manifest_sha256=reader.nested("manifest", frozenset({"sha256"})).digest("sha256"),
        images=images,
        flags_sha256=reader.nested("flags", frozenset({"sha256"})).digest("sha256"),
        who=reader.text("who"),
    )


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise RecordError("\n".join([f"{what} is not valid:", *(f"  {problem}" for problem in problems)]))


def parse_opening(text: str, *, what: str = "the opening document") -> Opening:
    """Reads the document the program made; raises RecordError with every problem, each with its path."""
    problems: list[str] = []
    opening = _opening(_Reader(_object(text, what), _OPENING_KEYS, problems))
    _refuse(what, problems)
    return opening


def _outcomes(reader: _Reader) -> dict[str, StepOutcome]:
    outcomes = reader.mapping("steps")
    below = _Reader(outcomes, frozenset(outcomes), reader.problems, "steps.")
    steps = {}
    for name in outcomes:
        inner = below.nested(name, frozenset({"status", "started", "finished", "attempts"}))
        steps[name] = StepOutcome(
            status=inner.text("status"),
            started=inner.time("started"),
            finished=inner.time("finished") if inner.present("finished") else None,
            attempts=inner.number("attempts"),
        )
    return steps


def parse_record(text: str, *, what: str = "the record") -> Record:
    """Reads a stored record; raises RecordError with every problem, each with its path."""
    problems: list[str] = []
    reader = _Reader(_object(text, what), _RECORD_KEYS, problems)
    status = reader.document.get("status")
    if "status" in reader.document and status not in list(RecordStatus):
        reader.problem("status", f"expected one of {', '.join(RecordStatus)}, got {status!r}")
    schema = reader.nested("schema", frozenset({"before", "after"}))
    previous = None
    if reader.present("previous"):
        inner = reader.nested("previous", frozenset({"deployment", "sha256"}))
        previous = Link(deployment=inner.number("deployment"), sha256=inner.digest("sha256"))
    record = Record(
        opening=_opening(reader),
        status=RecordStatus(status) if status in list(RecordStatus) else RecordStatus.OPEN,
        opened=reader.time("opened"),
        closed=reader.time("closed") if reader.present("closed") else None,
        reason=reader.text("reason") if reader.present("reason") else None,
        schema=Schema(
            before=schema.text("before") if schema.present("before") else None,
            after=schema.text("after") if schema.present("after") else None,
        ),
        backup=reader.mapping("backup") if reader.present("backup") else None,
        steps=_outcomes(reader),
        previous=previous,
    )
    if not problems and (record.status is RecordStatus.OPEN) != (record.closed is None):
        reader.problem("closed", f"{record.closed!r} does not go with status {record.status}")
    _refuse(what, problems)
    return record


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A record as it is stored: `record` is parsed when asked for, so a damaged one can still be listed and judged.

    `seal` is the annotation's hash, None while open; `resource_version` guards a write against a newer one.
    """

    deployment: int
    text: str
    manifest: str
    seal: str | None = None
    label: str = ""
    immutable: bool = False
    resource_version: str | None = None

    @cached_property
    def record(self) -> Record:
        """The parsed record; raises RecordError when it is damaged."""
        return parse_record(self.text, what=vocabulary.record_name(self.deployment))

    @property
    def status(self) -> RecordStatus:
        """The status inside; the label's where the content cannot be read, failed where that is no status either."""
        try:
            return self.record.status
        except RecordError:
            return RecordStatus(self.label) if self.label in list(RecordStatus) else RecordStatus.FAILED

    def link(self) -> Link:
        """The pointer at this closed record: its seal, so that the chain keeps what was sealed and not what was made
        of it later. Raises RecordError for an open one, whose hash is still going to change.
        """
        if self.status is RecordStatus.OPEN:
            raise RecordError(f"record {self.deployment} is still open and has no final hash; close it first")
        return Link(deployment=self.deployment, sha256=self.seal or sha256(self.text))


def config_map(record: Record, manifest: str, namespace: str) -> dict[str, Any]:
    """The ConfigMap of a record as a plain object; a closed one carries its seal and is immutable.

    Raises RecordError when `manifest` (the text of release.yaml) is not the one the record names.
    """
    if sha256(manifest) != record.opening.manifest_sha256:
        raise RecordError(
            f"record {record.deployment} names a manifest with SHA-256 {record.opening.manifest_sha256}, but the "
            f"{MANIFEST_KEY} given has {sha256(manifest)}: both must come from the same assembled release"
        )
    text = record.text()
    closed = record.status is not RecordStatus.OPEN
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": vocabulary.record_name(record.deployment),
            "namespace": namespace,
            "labels": {
                vocabulary.LABEL_PART_OF: vocabulary.PART_OF,
                vocabulary.LABEL_NAME: "record",
                vocabulary.LABEL_RECORD: "true",
                vocabulary.LABEL_STATUS: str(record.status),
                vocabulary.LABEL_DEPLOYMENT: str(record.deployment),
            },
            "annotations": {vocabulary.ANNOTATION_SHA256: sha256(text)} if closed else {},
        },
        "data": {RECORD_KEY: text, MANIFEST_KEY: manifest},
        **({"immutable": True} if closed else {}),
    }


def entry(document: Mapping[str, Any]) -> Entry:
    """The stored record in a ConfigMap given as a plain object (JSON of the API).

    Raises RecordError only when the name is not a record's; what is wrong inside shows when it is read or verified.
    """
    metadata = document.get("metadata") or {}
    name = metadata.get("name") or ""
    match = _NAME.fullmatch(name)
    if match is None:
        raise RecordError(f"the ConfigMap {name!r} is labelled a record but is not named like record-000017")
    data = document.get("data") or {}
    return Entry(
        deployment=int(match.group(1)),
        text=data.get(RECORD_KEY, ""),
        manifest=data.get(MANIFEST_KEY, ""),
        seal=(metadata.get("annotations") or {}).get(vocabulary.ANNOTATION_SHA256),
        label=(metadata.get("labels") or {}).get(vocabulary.LABEL_STATUS, ""),
        immutable=bool(document.get("immutable")),
        resource_version=metadata.get("resourceVersion"),
    )


class FindingKind(StrEnum):
    """What can be wrong with a chain of records."""

    UNREADABLE = "unreadable"
    CHANGED = "changed"
    UNPROTECTED = "unprotected"
    BROKEN_LINK = "broken-link"
    MISSING_NUMBER = "missing-number"
    MISSING_TAIL = "missing-tail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing wrong with the chain; `deployment` is the record it is about."""

    kind: FindingKind
    deployment: int
    message: str


def _judge_content(item: Entry) -> list[Finding]:
    number = item.deployment

    def found(kind: FindingKind, message: str) -> Finding:
        return Finding(kind=kind, deployment=number, message=message)

    try:
        record = item.record
    except RecordError as error:
        return [found(FindingKind.UNREADABLE, str(error))]
    findings = []
    if record.deployment != number:
        findings.append(
            found(
                FindingKind.CHANGED,
                f"record {number} says inside that it is of deployment {record.deployment}",
            )
        )
    if sha256(item.manifest) != record.opening.manifest_sha256:
        findings.append(
            found(
                FindingKind.CHANGED,
                f"the {MANIFEST_KEY} of record {number} was changed: its SHA-256 is {sha256(item.manifest)}, "
                f"the record names {record.opening.manifest_sha256}",
            )
        )
    if item.label != record.status:
        findings.append(
            found(
                FindingKind.CHANGED,
                f"record {number} is labelled {item.label!r}, but inside it is {record.status}",
            )
        )
    if record.status is RecordStatus.OPEN:
        return findings
    digest = sha256(item.text)
    if item.seal != digest:
        findings.append(
            found(
                FindingKind.CHANGED,
                f"record {number} was changed after it was closed: its SHA-256 is {digest}, its seal says {item.seal}",
            )
        )
    if not item.immutable:
        findings.append(
            found(
                FindingKind.UNPROTECTED,
                f"record {number} is closed as {record.status} but its ConfigMap is not immutable",
            )
        )
    return findings


def _judge_link(item: Entry, before: Entry | None) -> list[Finding]:
    try:
        previous = item.record.previous
    except RecordError:
        return []
    number = item.deployment

    def broken(message: str) -> list[Finding]:
        return [Finding(kind=FindingKind.BROKEN_LINK, deployment=number, message=message)]

    if number == 1:
        return (
            []
            if previous is None
            else broken(f"record 1 is the first but names record {previous.deployment} before it")
        )
    if previous is None:
        return broken(f"record {number} names no record before it")
    if previous.deployment != number - 1:
        return broken(f"record {number} names record {previous.deployment} before it, not {number - 1}")
    if before is None:
        return []
    digest = sha256(before.text)
    if digest != previous.sha256:
        return broken(
            f"record {number} was written when record {number - 1} had SHA-256 {previous.sha256}; now it has {digest}"
        )
    return []


def verify_chain(records: Sequence[Entry], head: Link | None) -> list[Finding]:
    """Everything wrong with the records of one environment, by number; empty when the chain holds.

    `head` is the last closed record the stack's state knows, None when it knows none. Newer records than the head are
    fine (the stack learns of them after the update), fewer are a missing tail.
    """
    by_number = {item.deployment: item for item in records}
    newest = max(by_number, default=0)
    findings: list[Finding] = []
    for number in range(1, newest + 1):
        item = by_number.get(number)
        if item is None:
            findings.append(
                Finding(
                    kind=FindingKind.MISSING_NUMBER,
                    deployment=number,
                    message=f"record {number} is missing",
                )
            )
            continue
        findings += _judge_content(item)
        findings += _judge_link(item, by_number.get(number - 1))
        if number < newest and item.label == RecordStatus.OPEN:
            findings.append(
                Finding(
                    kind=FindingKind.BROKEN_LINK,
                    deployment=number,
                    message=f"record {number} is still open although record {newest} was opened after it",
                )
            )
    if head is not None and head.deployment > newest:
        findings.append(
            Finding(
                kind=FindingKind.MISSING_TAIL,
                deployment=head.deployment,
                message=f"the stack's state knows record {head.deployment}, but the newest one stored is {newest}",
            )
        )
    elif head is not None and head.deployment in by_number and sha256(by_number[head.deployment].text) != head.sha256:
        findings.append(
            Finding(
                kind=FindingKind.CHANGED,
                deployment=head.deployment,
                message=f"record {head.deployment} has SHA-256 {sha256(by_number[head.deployment].text)}, "
                f"but the stack's state keeps {head.sha256}",
            )
        )
    return findings
