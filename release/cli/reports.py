"""`release status` and `release history` as text for people, or as the stable JSON of the modules that make them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from release import cluster
from release import history as records
from release import status as state
from release.cli.target import Target, find
from release.errors import ReleaseError
from steps.records import Link
from tools.progress import duration


def status(environment: str, *, as_json: bool) -> str:
    """What runs in the environment. Raises UsageError, ClusterError, RecordError."""
    target = find(environment)
    now = state.status(cluster.connect(target.value("kubernetes:context")), environment)
    return _json(now.document()) if as_json else _status_text(now)


def history(environment: str, *, as_json: bool, verify: bool) -> tuple[str, bool]:
    """The deployments of the environment, and False when their chain was verified and does not hold."""
    target = find(environment)
    client = cluster.connect(target.value("kubernetes:context"))
    found = records.verify(client, environment, _head(target)) if verify else records.history(client, environment)
    sound = found.verified is None or not found.verified.findings
    return (_json(found.document()) if as_json else _history_text(found)), sound


def _head(target: Target) -> Link | None:
    # Only this one needs the engine, and the Automation API takes most of a second to import.
    from pulumi import automation

    from release.cli.engine import Engine

    try:
        return records.parse_head(Engine(target).output("head"))
    except automation.CommandError as error:
        raise ReleaseError(
            f"the chain's end cannot be checked, because the stack's state cannot be read: {error}"
        ) from error


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def _status_text(now: state.Status) -> str:
    healthy, newest, going = now.healthy, now.newest, now.open
    if healthy is not None:
        lines = [f"{now.environment} runs {healthy.version}, deployment {healthy.deployment}, since {healthy.closed}"]
        lines += [f"  image {name:<9} {reference}" for name, reference in sorted(healthy.opening.images.items())]
    else:
        lines = [f"{now.environment}: no release has been healthy here yet"]
    lines.append(f"  schema          {now.revision or 'none'}")
    lines.append(f"  pods            {now.ready} of {now.desired} ready")
    for name, pods in sorted(now.workloads.items()):
        lines.append(f"    {name:<13} {pods.ready} of {pods.desired} ready, {pods.version or 'unknown version'}")
    lines.append(f"  URL             {now.url or now.hint or 'none'}")
    if going is not None:
        lines.append(
            f"under way: deployment {going.deployment} ({going.version}), opened {going.opened} by {going.who}"
        )
        lines += [f"  {step:<15} {stands}" for step, stands in going.steps]
        lines.append(f"  it goes on with: release up {now.environment} {going.version}")
    elif newest is not None and newest is not healthy:
        version = newest.version or "unreadable"
        lines.append(f"the newest deployment, {newest.deployment} ({version}), {newest.status}: {newest.reason}")
    return "\n".join(lines)


def _history_text(found: records.History) -> str:
    rows = [("NO", "VERSION", "STATUS", "OPENED", "TOOK", "SCHEMA", "BY", "REASON")]
    for line in found.document()["records"]:
        if line["damaged"] is not None:
            rows.append((str(line["deployment"]), "?", "DAMAGED", "", "", "", "", line["damaged"].splitlines()[0]))
            continue
        schema = line["schema"]
        revisions = " → ".join(dict.fromkeys(text for text in (schema["before"], schema["after"]) if text))
        took = "" if line["seconds"] is None else duration(line["seconds"])
        rows.append(
            (
                str(line["deployment"]),
                line["version"],
                line["status"],
                line["opened"],
                took,
                revisions,
                line["who"],
                (line["reason"] or "").splitlines()[0] if line["reason"] else "",
            )
        )
    lines = _columns(rows) if len(rows) > 1 else [f"{found.environment}: no deployment yet"]
    if found.verified is not None:
        lines.append("")
        lines += [f"{finding.kind}: {finding.message}" for finding in found.verified.findings]
        if not found.verified.findings:
            head = found.verified.head
            end = (
                f"its end agrees with the stack's state (deployment {head.deployment})"
                if head
                else ("the stack's state knows no end of it yet")
            )
            lines.append(f"verified: {len(found.entries)} records, unchanged and complete; {end}")
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
