"""Closes the deployment's record with what its steps left, and seals it.

A record is closed as healthy only when every step that had to run has passed; why one failed is the steps' to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from steps import vocabulary
from steps.context import Context
from steps.errors import StepError
from steps.results import Attempt
from steps.store import RecordStore
from steps.vocabulary import RecordStatus, Step, StepStatus

REQUIRED = tuple(step for step in Step if step is not Step.RECORD_CLOSE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--status", required=True, choices=[str(RecordStatus.HEALTHY), str(RecordStatus.FAILED)])
    parser.add_argument("--reason", help="why it failed; required with --status failed")
    parser.add_argument(
        "--require",
        action="append",
        choices=[str(step) for step in REQUIRED],
        help="a step that must have passed for a healthy record (all of them when not given)",
    )


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"record", "status", "sha256"}: the seal is the chain's head, which the stack's state keeps.

    Raises StepError when a required step has not passed, RecordError when the record is closed otherwise or missing.
    """
    status = RecordStatus(arguments.status)
    if status is RecordStatus.FAILED and not arguments.reason:
        raise StepError("--status failed needs a --reason: it is all that people will find later")
    store = RecordStore(context.cluster.api, context.environment, patience=context.cluster.patience)
    if status is RecordStatus.HEALTHY:
        problems = missing(store.results(context.deployment), arguments.require or [str(step) for step in REQUIRED])
        if problems:
            raise StepError(f"record {context.deployment} cannot be closed as healthy: {'; '.join(problems)}")
    reason = arguments.reason if status is RecordStatus.FAILED else None
    entry = store.close(context.deployment, status, reason, context.now())
    record = entry.record
    context.log(f"record {entry.deployment} is closed as {record.status} and sealed with {entry.seal}")
    return {"record": vocabulary.record_name(entry.deployment), "status": str(record.status), "sha256": entry.seal}


def missing(found: Mapping[str, Sequence[Attempt]], required: Sequence[str]) -> list[str]:
    """What keeps a record from being healthy, one sentence a step; empty when all required steps have passed."""
    problems = []
    for step in required:
        attempts = found.get(step)
        if not attempts:
            problems.append(f"step {step} left no result")
        elif attempts[-1].status is not StepStatus.PASSED:
            problems.append(f"step {step} is {attempts[-1].status}: {attempts[-1].reason or 'no reason given'}")
    return problems
