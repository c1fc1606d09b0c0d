"""From configuration to graph: what `__main__` calls with what it read, and the order in which things are decided.

Leaves to others: every rule (`release`) and every resource (the other components).
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from components import failure_hook
from components.gate import Gate, GateArgs
from components.release_flow import ReleaseFlow, ReleaseFlowArgs, Secrets
from components.step_job import StepContext
from release import cluster, deployment, failures, inputs, manifest, settings
from release.jobs import job_states
from release.keys import DataProvider
from release.plan import plan
from steps.records import Opening
from steps.vocabulary import records_namespace


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the stack exports."""

    version: str
    deployment: int
    url: pulumi.Output[str]
    head: pulumi.Output[Mapping[str, str]]


def build(root: Path, environment: str, values: Mapping[str, object], secret_keys: Collection[str]) -> Built:
    """Registers the gate and everything behind it; raises ReleaseError before the first resource when it must not."""
    chosen = settings.load(values, secret_keys, stack=environment)
    released = manifest.load(root / chosen.folder)
    client = cluster.connect(chosen.context)
    records = cluster.records(client, environment)
    fingerprint = inputs.digest(released, chosen, program=inputs.program_digest(root))
    decided = deployment.decide(records, fingerprint, released.manifest.version)
    steps = plan(chosen.flow)

    failure_hook.attach(
        why=lambda name: failures.why(client, environment, decided.number, name),
        close=lambda reason: failures.close(client, environment, decided.number, reason),
    )
    gate = Gate(
        "gate",
        GateArgs(
            environment=environment,
            version=released.manifest.version,
            manifest=released.sha256,
            images=released.manifest.images,
            direction=decided.direction,
            plan=steps,
        ),
    )
    provider = kubernetes.Provider(
        "cluster",
        context=chosen.context,
        enable_server_side_apply=True,
        opts=pulumi.ResourceOptions(depends_on=[gate]),
    )
    opening = Opening(
        environment=environment,
        deployment=decided.number,
        version=released.manifest.version,
        type=released.manifest.type,
        inputs=fingerprint,
        manifest_sha256=released.sha256,
        images=released.manifest.images,
        flags_sha256=released.manifest.flags.sha256,
        who=_who(),
    )
    flow = ReleaseFlow(
        chosen.flow,
        ReleaseFlowArgs(
            plan=steps,
            context=StepContext(
                environment=environment,
                namespace=environment,
                records_namespace=records_namespace(environment),
                deployment=decided.number,
                version=released.manifest.version,
                image=chosen.steps_image,
                deadline_seconds=chosen.step_deadline_seconds,
                jobs=job_states(client, environment, decided.number),
            ),
            release=released,
            settings=chosen,
            secrets=_secrets(chosen),
            document=opening.text(),
            resumes=decided.resumes or decided.settled,
        ),
        opts=pulumi.ResourceOptions(depends_on=[gate], providers=[provider]),
    )
    return Built(version=released.manifest.version, deployment=decided.number, url=flow.url, head=flow.head)


def _secrets(chosen: settings.Settings) -> Secrets:
    """The passwords and URLs as Outputs; which of them must be there was checked with the settings."""
    config = pulumi.Config("release")
    in_cluster = chosen.data_provider is DataProvider.IN_CLUSTER
    return Secrets(
        application_password=config.require_secret("appPassword"),
        owner_password=config.require_secret("ownerPassword") if in_cluster else None,
        database_url=None if in_cluster else config.require_secret("databaseUrl"),
    )


def _who() -> str:
    """Who starts this update, for the record: RELEASE_WHO where a pipeline sets it, else user and machine."""
    return os.environ.get("RELEASE_WHO") or f"{getpass.getuser()}@{socket.gethostname()}"
