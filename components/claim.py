"""A claim for data that must outlive everything else: protected against deletion, retained when the stack goes."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from components.labels import labels


@dataclass(frozen=True, kw_only=True)
class Storage:
    """`size` is a Kubernetes quantity; `storage_class` None for the cluster's default."""

    size: str
    storage_class: str | None


def protected_claim(
    name: str, *, namespace: str, role: str, storage: Storage, parent: pulumi.Resource
) -> core.v1.PersistentVolumeClaim:
    """The claim `name` of the role `role`, for one writer at a time."""
    return core.v1.PersistentVolumeClaim(
        name,
        metadata=meta.v1.ObjectMetaArgs(
            name=name,
            namespace=namespace,
            labels=labels(role),
            # A class that binds on first use leaves the claim pending until the first pod is there.
            annotations={"pulumi.com/skipAwait": "true"},
        ),
        spec=core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=storage.storage_class,
            resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": storage.size}),
        ),
        opts=pulumi.ResourceOptions(parent=parent, protect=True, retain_on_delete=True),
    )
