"""The record of a deployment: opened before anything changes, closed as healthy after everything has held.

Leaves to others: what a record says and how its chain is kept (`steps.records`), closing one as failed (the hook).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from components.pods import config_file
from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import ANNOTATION_SHA256, Step, labels, record_name


@dataclass(frozen=True, kw_only=True)
class RecordArgs:
    """`document` is the opening document (canonical JSON), `manifest` the text of release.yaml.

    `resumes` tells that this deployment was opened by an earlier update: who opened it is then left as it was.
    """

    context: StepContext
    document: str
    manifest: str
    resumes: bool


class RecordOpen(pulumi.ComponentResource):
    """Opens the record; no later resource exists before it is open."""

    def __init__(self, name: str, args: RecordArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:RecordOpen", name, None, opts)
        context = args.context
        opening = f"opening-{context.deployment}"
        document = core.v1.ConfigMap(
            "opening",
            metadata=meta.v1.ObjectMetaArgs(
                name=opening,
                namespace=context.records_namespace,
                labels=labels(Step.RECORD_OPEN, context.deployment),
            ),
            data={"record.json": args.document, "release.yaml": args.manifest},
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["data"] if args.resumes else []),
        )
        StepJob(
            str(Step.RECORD_OPEN),
            StepJobArgs(
                context=context,
                step=Step.RECORD_OPEN,
                arguments=[
                    "--record-file=/etc/release/record.json",
                    "--manifest-file=/etc/release/release.yaml",
                ],
                volumes=[config_file("opening", opening, "/etc/release")],
                namespace=context.records_namespace,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[document]),
        )
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class RecordCloseArgs:
    """The deployment whose record is closed as healthy."""

    context: StepContext


class RecordClose(pulumi.ComponentResource):
    """Closes the record as healthy and keeps the head of the chain in the stack's state.

    `head` is {"deployment": int, "sha256": hex}: a record that is missing at the end of the chain shows against it.
    """

    head: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: RecordCloseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:RecordClose", name, None, opts)
        context = args.context
        close = StepJob(
            str(Step.RECORD_CLOSE),
            StepJobArgs(
                context=context,
                step=Step.RECORD_CLOSE,
                arguments=["--status=healthy"],
                namespace=context.records_namespace,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        path = f"{context.records_namespace}/{record_name(context.deployment)}"
        record = core.v1.ConfigMap.get(
            "head",
            # In a preview the Job has not run and there is nothing to read yet: an unknown id skips the reading.
            close.passed.apply(lambda _: path),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[close]),
        )
        self.head = record.metadata.apply(
            lambda metadata: {
                "deployment": str(context.deployment),
                "sha256": (metadata.annotations or {}).get(ANNOTATION_SHA256, ""),
            }
        )
        self.register_outputs({"head": self.head})
