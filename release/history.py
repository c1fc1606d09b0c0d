"""What was deployed to an environment: its records as a list for people and programs, and whether they can be trusted.

The format and the rules of the chain belong to `steps.records`. What runs now belongs to `release.status`.

`history` as JSON (docs/json.md): {"format": 1, "environment", "records": [{"deployment", "status", "version", "type",
"who", "opened", "closed", "seconds", "reason", "inputs", "images", "schema": {"before", "after"}, "backup", "steps",
"sha256", "damaged"}], "verified": null | {"head": {"deployment", "sha256"} | null, "findings": [{"kind", "deployment",
"message"}]}}. Records come oldest first; times are UTC with seconds; a damaged record has its number and `damaged`, the
rest is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import lightkube

from release import cluster
from release.errors import RecordError
from steps.records import Entry, Finding, Link, verify_chain

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The chain judged against `head`, the last link that the stack's state knows (None when it knows none)."""

    head: Link | None
    findings: Sequence[Finding]


@dataclass(frozen=True, kw_only=True)
class History:
    """The records of one environment, oldest first; `verified` is None when that was not asked for."""

    environment: str
    entries: Sequence[Entry]
    verified: Verification | None = None

    def document(self) -> dict[str, Any]:
        """The JSON document of the module's description."""
        verified = None
        if self.verified is not None:
            head = self.verified.head
            verified = {
                "head": None if head is None else {"deployment": head.deployment, "sha256": head.sha256},
                "findings": [
                    {"kind": str(finding.kind), "deployment": finding.deployment, "message": finding.message}
                    for finding in self.verified.findings
                ],
            }
        return {
            "format": FORMAT,
            "environment": self.environment,
            "records": [_line(entry) for entry in self.entries],
            "verified": verified,
        }


def history(client: lightkube.Client, environment: str) -> History:
    """All records of `environment`, damaged ones too. Raises ClusterError when the cluster does not answer."""
    return History(environment=environment, entries=cluster.store(client, environment).list())


def verify(client: lightkube.Client, environment: str, head: Link | None) -> History:
    """The history with its chain judged: content, seals, links, numbers, and the end against `head`."""
    entries = cluster.store(client, environment).list()
    findings = verify_chain(entries, head)
    return History(environment=environment, entries=entries, verified=Verification(head=head, findings=findings))


def parse_head(value: object) -> Link | None:
    """The chain's head out of the stack's output `head`; None when the stack has none yet.

    Raises RecordError when it has another shape than {"deployment", "sha256"}.
    """
    if value is None:
        return None
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        # The number comes back from the engine as text or as a float.
        link = Link(deployment=int(float(value["deployment"])), sha256=value["sha256"])
        if not isinstance(link.sha256, str):
            raise TypeError
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the stack's output `head` is no head of a chain: {value!r}") from error
    # A preview, or an update that ended before its record was sealed, leaves the hash empty.
    return link if link.sha256 else None


def seconds_between(opened: str, closed: str | None) -> int | None:
    """Seconds between two times of a record, None while it is open."""
    if closed is None:
        return None
    return round((datetime.fromisoformat(closed) - datetime.fromisoformat(opened)).total_seconds())


_FIELDS = (
    "status",
    "version",
    "type",
    "who",
    "opened",
    "closed",
    "reason",
    "inputs",
    "images",
    "schema",
    "backup",
    "steps",
)


def _line(entry: Entry) -> dict[str, Any]:
    try:
        document = entry.record.document()
    except RecordError as error:
        empty = dict.fromkeys(_FIELDS)
        return {
            "deployment": entry.deployment,
            **empty,
            "seconds": None,
            "sha256": entry.seal,
            "damaged": str(error),
        }
    return {
        "deployment": entry.deployment,
        **{field: document[field] for field in _FIELDS},
        "seconds": seconds_between(document["opened"], document["closed"]),
        "sha256": entry.seal,
        "damaged": None,
    }
