"""Opens the deployment's record, after everything of older deployments has come to rest.

An older record that is still open is closed as failed; older step Jobs are suspended, and their pods waited for, so
that nothing of them works on while this deployment begins.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from steps import records, vocabulary
from steps.context import Context
from steps.errors import RecordError, StepError
from steps.kube import Json, Source
from steps.records import Opening
from steps.store import RecordStore
from steps.vocabulary import RecordStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--record-file", required=True, help="the opening document")
    parser.add_argument("--manifest-file", required=True, help="the release.yaml it names")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to wait for pods of older deployments")


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"record", "status", "superseded": [numbers], "suspended": [Jobs]}.

    Raises RecordError when the number is taken or not the next one, StepError when older pods do not end.
    """
    text = context.read(arguments.record_file, "the opening document")
    opening = records.parse_opening(text, what=arguments.record_file)
    manifest = context.read(arguments.manifest_file, "the release's manifest")
    _check(context, opening)
    store = RecordStore(context.cluster.api, context.environment, patience=context.cluster.patience)
    entries = {entry.deployment: entry for entry in store.list()}
    superseded: list[int] = []
    suspended: list[str] = []
    if opening.deployment not in entries:
        # Before anything older is touched: this update may itself be the one that came too late.
        records.check_next(opening, max(entries, default=0))
        suspended = _bring_to_rest(context, arguments.timeout)
        for number, entry in sorted(entries.items()):
            if entry.status is RecordStatus.OPEN:
                reason = f"superseded by deployment {opening.deployment}"
                store.close(number, RecordStatus.FAILED, reason, context.now())
                superseded.append(number)
                context.log(f"record {number} was still open and is closed as failed: {reason}")
    entry = store.open(opening, manifest, context.now())
    created = opening.deployment not in entries
    context.log(
        f"record {entry.deployment} of {context.environment} for {opening.version} "
        + ("is open" if created else f"is {entry.status} already, with the same inputs")
    )
    return {
        "record": vocabulary.record_name(entry.deployment),
        "status": str(entry.status),
        "superseded": superseded,
        "suspended": suspended,
    }


def _check(context: Context, opening: Opening) -> None:
    """The document and the pod's variables come from the same program; if they differ, one of them is stale."""
    expected = {
        "environment": context.environment,
        "deployment": context.deployment,
        "version": context.version,
    }
    wrong = [
        f"{name} is {getattr(opening, name)!r}, this step's is {value!r}"
        for name, value in expected.items()
        if getattr(opening, name) != value
    ]
    if wrong:
        raise RecordError(f"the opening document is not this deployment's: {'; '.join(wrong)}")


def older(item: Json, deployment: int) -> bool:
    """Whether a Job or pod belongs to an older deployment's step."""
    number = item["metadata"].get("labels", {}).get(vocabulary.LABEL_DEPLOYMENT, "")
    return number.isdecimal() and int(number) < deployment


def active_job(job: Json) -> bool:
    """Whether a Job may still run pods."""
    ended = any(
        each["type"] in {"Complete", "Failed"} and each["status"] == "True"
        for each in job.get("status", {}).get("conditions", ())
    )
    return not ended and not job.get("spec", {}).get("suspend", False)


def active_pod(pod: Json) -> bool:
    """Whether a pod may still do something."""
    return pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}


def _bring_to_rest(context: Context, timeout: float) -> list[str]:
    """Suspends older step Jobs in both namespaces and watches until their pods are gone; returns the Jobs' names."""
    steps = {vocabulary.LABEL_STEP: None, vocabulary.LABEL_DEPLOYMENT: None}
    deadline = context.monotonic() + timeout
    suspended = []
    for namespace in (context.environment, context.records_namespace):
        for job in context.cluster.jobs(namespace, steps):
            name = job["metadata"]["name"]
            if older(job, context.deployment) and active_job(job) and context.cluster.suspend_job(namespace, name):
                suspended.append(name)
                context.log(f"Job {name} of an older deployment was still active: suspended")
    for namespace in (context.environment, context.records_namespace):
        with context.cluster.watch(namespace, Source(kind="pods", labels=steps)) as watch:
            told: set[str] = set()
            while True:
                change = watch.next(deadline - context.monotonic())
                if change is None:
                    raise StepError(
                        f"pods of older deployments are still there after {timeout:.0f} s: "
                        f"{', '.join(sorted(told)) or 'they could not be listed'}; end them with "
                        f"kubectl delete pod -n {namespace} {' '.join(sorted(told))}"
                    )
                left = {
                    name for name, pod in change.items.items() if older(pod, context.deployment) and active_pod(pod)
                }
                if left - told:
                    context.log(f"waiting for pods of older deployments to end: {', '.join(sorted(left))}")
                told = left
                if not left:
                    break
    return suspended
