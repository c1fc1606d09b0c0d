"""A backup before every change of the schema: a dump and its manifest, on a claim that outlives the stack.

Leaves to others: restoring one.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from components.labels import labels
from components.pods import Size, secret_file
from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step

CLAIM = "backups"


@dataclass(frozen=True, kw_only=True)
class BackupStorageArgs:
    """`storage` is a Kubernetes quantity; `storage_class` None for the cluster's default."""

    namespace: str
    storage: str
    storage_class: str | None


class BackupStorage(pulumi.ComponentResource):
    """The claim with all backups: in every graph, protected and retained."""

    def __init__(self, name: str, args: BackupStorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:BackupStorage", name, None, opts)
        core.v1.PersistentVolumeClaim(
            "backups",
            metadata=meta.v1.ObjectMetaArgs(
                name=CLAIM,
                namespace=args.namespace,
                labels=labels("backup"),
                # A class that binds on first use leaves the claim pending until the first backup's pod is there.
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=core.v1.PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteOnce"],
                storage_class_name=args.storage_class,
                resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": args.storage}),
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class BackupArgs:
    """`keep` is how many complete backups stay; the Secret holds the owner's URL."""

    context: StepContext
    owner_secret: pulumi.Input[str]
    keep: int


class Backup(pulumi.ComponentResource):
    """Dump and manifest of row counts and checksums, taken from one exported snapshot."""

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:Backup", name, None, opts)
        backups = (
            core.v1.VolumeArgs(
                name="backups",
                persistent_volume_claim=core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name=CLAIM),
            ),
            core.v1.VolumeMountArgs(name="backups", mount_path="/backups"),
        )
        StepJob(
            str(Step.BACKUP),
            StepJobArgs(
                context=args.context,
                step=Step.BACKUP,
                arguments=[
                    "--database-url-file=/run/secrets/database/url",
                    "--directory=/backups",
                    f"--keep={args.keep}",
                ],
                volumes=[secret_file("database", args.owner_secret, "/run/secrets/database"), backups],
                size=Size(cpu="100m", memory="512Mi"),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
