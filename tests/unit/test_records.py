"""The record's format: canonical, parsed strictly, sealed, chained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from steps import records, vocabulary
from steps.errors import RecordError
from steps.records import Entry, FindingKind, Link, Opening, Record, Schema, StepOutcome
from steps.vocabulary import RecordStatus

MANIFEST = "apiVersion: release.energy/v1\nversion: 1.0.0\n"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def opening(deployment: int = 1, **changes: Any) -> Opening:
    values: dict[str, Any] = {
        "environment": "staging",
        "deployment": deployment,
        "version": f"1.{deployment}.0",
        "type": "minor",
        "inputs": hashlib.sha256(str(deployment).encode()).hexdigest(),
        "manifest_sha256": records.sha256(MANIFEST),
        "images": {"forecast": "registry.example/forecast@sha256:" + "a" * 64},
        "flags_sha256": "b" * 64,
        "who": "Jörg@laptop",
    }
    return Opening(**{**values, **changes})


def closed(deployment: int, previous: Link | None) -> Record:
    record = records.open_record(opening(deployment), previous, NOW)
    return records.close_record(
        record,
        status=RecordStatus.HEALTHY,
        reason=None,
        now=NOW + timedelta(minutes=5),
        schema=Schema(before="0001", after="0002"),
        backup={"name": "staging-1", "bytes": 17},
        steps={
            "migrate": StepOutcome(
                status="passed", started="2026-03-01T12:01:00Z", finished="2026-03-01T12:02:00Z", attempts=1
            )
        },
    )


def stored(record: Record) -> Entry:
    return records.entry(records.config_map(record, MANIFEST, "staging-records"))


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    for number in range(1, length + 1):
        entries.append(stored(closed(number, entries[-1].link() if entries else None)))
    return entries


def tampered(entry: Entry, **changes: Any) -> Entry:
    """The entry with other content, sealed again by whoever changed it."""
    text = records.canonical({**json.loads(entry.text), **changes})
    return replace(entry, text=text, seal=records.sha256(text))


def found(entries: Sequence[Entry], head: Link | None = None) -> list[tuple[str, int]]:
    return [(str(each.kind), each.deployment) for each in records.verify_chain(entries, head)]


def test_canonical_json_is_the_same_for_the_same_content() -> None:
    assert records.canonical({"b": 1, "a": {"d": "ä", "c": None}}) == '{"a":{"c":null,"d":"ä"},"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.canonical({"rate": float("nan")})


def test_the_document_has_the_agreed_fields() -> None:
    document = json.loads(closed(2, Link(deployment=1, sha256="c" * 64)).text())
    assert document == {
        "format": 1,
        "environment": "staging",
        "deployment": 2,
        "status": "healthy",
        "version": "1.2.0",
        "type": "minor",
        "inputs": hashlib.sha256(b"2").hexdigest(),
        "manifest": {"sha256": records.sha256(MANIFEST)},
        "images": {"forecast": "registry.example/forecast@sha256:" + "a" * 64},
        "flags": {"sha256": "b" * 64},
        "who": "Jörg@laptop",
        "opened": "2026-03-01T12:00:00Z",
        "closed": "2026-03-01T12:05:00Z",
        "reason": None,
        "schema": {"before": "0001", "after": "0002"},
        "backup": {"name": "staging-1", "bytes": 17},
        "steps": {
            "migrate": {
                "status": "passed",
                "started": "2026-03-01T12:01:00Z",
                "finished": "2026-03-01T12:02:00Z",
                "attempts": 1,
            }
        },
        "previous": {"deployment": 1, "sha256": "c" * 64},
    }


def test_what_is_written_is_read_back_to_the_same_text() -> None:
    record = closed(2, Link(deployment=1, sha256="c" * 64))
    assert records.parse_record(record.text()) == record
    assert records.parse_record(record.text()).text() == record.text()
    assert records.parse_opening(opening().text()) == opening()


def test_times_are_utc_and_need_a_zone() -> None:
    berlin = timezone(timedelta(hours=2))
    assert records.timestamp(datetime(2026, 7, 1, 2, 30, 59, 999999, tzinfo=berlin)) == "2026-07-01T00:30:59Z"
    with pytest.raises(RecordError, match="has no time zone"):
        records.timestamp(datetime(2026, 7, 1))


def test_every_problem_of_a_damaged_record_is_named_with_its_path() -> None:
    document = json.loads(closed(1, None).text())
    document["deployment"] = "1"
    document["images"]["worker"] = "registry.example/worker:latest"
    document["manifest"] = {}
    document["steps"]["migrate"]["attempts"] = 0
    document["status"] = "fine"
    document["surprise"] = 1
    del document["who"]
    with pytest.raises(RecordError) as caught:
        records.parse_record(json.dumps(document), what="record-000001")
    head, *problems = str(caught.value).splitlines()
    assert head == "record-000001 is not valid:"
    assert sorted(problems) == sorted(
        [
            "  surprise: not a field of format 1",
            "  who: missing",
            "  status: expected one of open, healthy, failed, got 'fine'",
            "  deployment: expected a whole number from 1, got '1'",
            "  manifest.sha256: missing",
            "  images.worker: expected a reference that ends in @sha256:…, got 'registry.example/worker:latest'",
            "  steps.migrate.attempts: expected a whole number from 1, got 0",
        ]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the record is not JSON: "),
        ("[]", "the record is not a JSON object but list"),
        ('{"format":2}', "the record has format 2, this program reads format 1"),
    ],
)
def test_what_is_no_record_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        records.parse_record(text)
    assert str(caught.value).startswith(message)


def test_a_status_that_does_not_go_with_the_closing_time_is_refused() -> None:
    document = json.loads(closed(1, None).text())
    document["closed"] = None
    with pytest.raises(RecordError, match="closed: None does not go with status healthy"):
        records.parse_record(json.dumps(document))


def test_opening_follows_the_newest_record_without_a_gap() -> None:
    first = records.open_record(opening(1), None, NOW)
    assert (first.status, first.opened, first.closed, first.previous) == (
        RecordStatus.OPEN,
        "2026-03-01T12:00:00Z",
        None,
        None,
    )
    second = records.open_record(opening(2), Link(deployment=1, sha256="d" * 64), NOW)
    assert second.previous == Link(deployment=1, sha256="d" * 64)
    with pytest.raises(
        RecordError, match="deployment 4 cannot be opened: the newest record is 2, so the next number is 3"
    ):
        records.open_record(opening(4), Link(deployment=2, sha256="d" * 64), NOW)
    with pytest.raises(RecordError, match="there is no record yet, so the next number is 1"):
        records.open_record(opening(2), None, NOW)


def test_closing_keeps_what_was_opened() -> None:
    opened = records.open_record(opening(1), None, NOW)
    failed = records.close_record(opened, status=RecordStatus.FAILED, reason="migrate failed", now=NOW)
    assert (failed.opening, failed.opened, failed.status, failed.reason) == (
        opened.opening,
        opened.opened,
        RecordStatus.FAILED,
        "migrate failed",
    )


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        (RecordStatus.FAILED, None, "failed needs a reason, got None"),
        (RecordStatus.HEALTHY, "because", "healthy has no reason, got 'because'"),
        (RecordStatus.OPEN, None, "can be closed as healthy or failed, not as open"),
    ],
)
def test_closing_is_either_healthy_or_failed_for_a_reason(
    status: RecordStatus, reason: str | None, message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        records.close_record(records.open_record(opening(1), None, NOW), status=status, reason=reason, now=NOW)


def test_a_closed_record_is_not_closed_again() -> None:
    with pytest.raises(RecordError, match=r"record 1 is closed already \(healthy, 2026-03-01T12:05:00Z\)"):
        records.close_record(closed(1, None), status=RecordStatus.FAILED, reason="late", now=NOW)


def test_an_open_record_has_neither_seal_nor_link() -> None:
    document = records.config_map(records.open_record(opening(1), None, NOW), MANIFEST, "staging-records")
    assert document["metadata"]["annotations"] == {}
    assert "immutable" not in document
    with pytest.raises(RecordError, match="record 1 is still open and has no final hash"):
        records.entry(document).link()


def test_a_closed_records_config_map_is_sealed_immutable_and_labelled() -> None:
    record = closed(17, Link(deployment=16, sha256="c" * 64))
    document = records.config_map(record, MANIFEST, "staging-records")
    digest = hashlib.sha256(record.text().encode("utf-8")).hexdigest()
    assert document["metadata"] == {
        "name": "record-000017",
        "namespace": "staging-records",
        "labels": {
            "app.kubernetes.io/part-of": "energy-forecast",
            "app.kubernetes.io/name": "record",
            "release.energy/record": "true",
            "release.energy/status": "healthy",
            "release.energy/deployment": "17",
        },
        "annotations": {"release.energy/sha256": digest},
    }
    assert document["data"] == {"record.json": record.text(), "release.yaml": MANIFEST}
    assert document["immutable"] is True
    assert records.entry(document).link() == Link(deployment=17, sha256=digest)


def test_a_manifest_that_is_not_the_records_is_refused() -> None:
    with pytest.raises(RecordError, match="both must come from the same assembled release"):
        records.config_map(closed(1, None), MANIFEST + "\n", "staging-records")


def test_a_config_map_that_is_not_named_like_a_record_is_refused() -> None:
    with pytest.raises(RecordError, match="'result-17-migrate' is labelled a record but is not named like"):
        records.entry({"metadata": {"name": "result-17-migrate"}})


def test_an_untouched_chain_holds_with_and_without_a_head() -> None:
    entries = chain(4)
    running = stored(records.open_record(opening(5), entries[-1].link(), NOW))
    assert found([]) == []
    assert found(entries) == []
    assert found([*entries, running], entries[-1].link()) == []
    assert found([*entries, running], entries[1].link()) == []


def test_changed_content_is_found_by_its_seal() -> None:
    entries = chain(3)
    text = entries[1].text.replace("Jörg", "Jürg")
    entries[1] = replace(entries[1], text=text)
    findings = records.verify_chain(entries, None)
    assert [(each.kind, each.deployment) for each in findings] == [
        (FindingKind.CHANGED, 2),
        (FindingKind.BROKEN_LINK, 3),
    ]
    assert "was changed after it was closed" in findings[0].message


def test_content_that_was_sealed_again_is_found_by_the_next_record() -> None:
    entries = chain(3)
    entries[1] = tampered(entries[1], who="somebody else")
    assert found(entries) == [("broken-link", 3)]


def test_a_change_of_the_last_record_is_found_by_the_head() -> None:
    entries = chain(3)
    head = entries[-1].link()
    entries[2] = tampered(entries[2], reason=None, who="somebody else")
    assert found(entries) == []
    assert found(entries, head) == [("changed", 3)]


def test_a_chain_goes_on_from_what_was_sealed_not_from_what_was_made_of_it() -> None:
    entries = chain(2)
    entries[1] = replace(entries[1], text=entries[1].text.replace("Jörg", "Jürg"))
    entries.append(stored(closed(3, entries[1].link())))
    assert found(entries) == [("changed", 2), ("broken-link", 3)]


def test_a_changed_manifest_or_label_or_protection_is_found() -> None:
    entries = chain(3)
    entries[0] = replace(entries[0], manifest=MANIFEST.replace("1.0.0", "1.0.1"))
    entries[1] = replace(entries[1], label="failed")
    entries[2] = replace(entries[2], immutable=False)
    assert found(entries) == [("changed", 1), ("changed", 2), ("unprotected", 3)]


def test_a_removed_seal_is_found() -> None:
    entries = chain(2)
    entries[1] = replace(entries[1], seal=None)
    assert found(entries) == [("changed", 2)]


def test_missing_records_are_found_at_the_beginning_in_the_middle_and_at_the_end() -> None:
    entries = chain(5)
    head = entries[-1].link()
    assert found([entries[0], *entries[2:]], head) == [("missing-number", 2)]
    assert found(entries[1:], head) == [("missing-number", 1)]
    assert found(entries[:-1], head) == [("missing-tail", 5)]
    assert found([], head) == [("missing-tail", 5)]


def test_a_record_under_another_ones_name_is_found() -> None:
    entries = chain(2)
    entries[1] = replace(entries[1], text=entries[0].text, seal=entries[0].seal)
    assert found(entries) == [("changed", 2), ("broken-link", 2)]


def test_a_damaged_record_is_a_finding_and_not_an_error() -> None:
    entries = chain(3)
    entries[1] = replace(entries[1], text="{}")
    assert found(entries) == [("unreadable", 2), ("broken-link", 3)]


def test_a_record_left_open_behind_another_is_found() -> None:
    first = records.open_record(opening(1), None, NOW)
    second = closed(2, Link(deployment=1, sha256=records.sha256(first.text())))
    assert found([stored(first), stored(second)]) == [("broken-link", 1)]


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("1.3.0", "migrate-17-1-3-0"),
        ("1.3.0-RC.1+Build", "migrate-17-1-3-0-rc-1-build"),
    ],
)
def test_job_names_are_dns_labels(version: str, name: str) -> None:
    assert vocabulary.job_name(vocabulary.Step.MIGRATE, 17, version) == name


def test_job_names_that_would_be_too_long_stay_distinct() -> None:
    names = {
        vocabulary.job_name(vocabulary.Step.RECORD_CLOSE, 123456, f"1.0.0-{'x' * 60}.{number}") for number in range(3)
    }
    assert len(names) == 3
    assert max(len(name) for name in names) <= 63
