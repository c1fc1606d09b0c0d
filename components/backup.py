"""A backup before every change of the schema: a dump and its manifest, on a claim that outlives the stack.

Leaves to others: restoring one.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core

from components.claim import Storage, protected_claim
from components.pods import Size, secret_file
from components.step_job import StepContext, StepJob, StepJobArgs
from steps.vocabulary import Step

CLAIM = "backups"


@dataclass(frozen=True, kw_only=True)
class BackupStorageArgs:
    """How large the claim is, and where."""

    namespace: str
    storage: Storage


class BackupStorage(pulumi.ComponentResource):
    """The claim with all backups: in every graph, protected and retained."""

    def __init__(self, name: str, args: BackupStorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:BackupStorage", name, None, opts)
        protected_claim(CLAIM, namespace=args.namespace, role="backup", storage=args.storage, parent=self)
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
