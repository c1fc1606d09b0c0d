"""Volumes for claims: a pool of folders offered as `local` PersistentVolumes, which honour a pod's fsGroup.

Runs in the supervisor: keeps enough of them Available, and empties and replaces what a deleted claim leaves behind, so
the storage class has the meaning of reclaim policy Delete. The class itself is one of the manifests.
"""

from __future__ import annotations

import logging
import shutil
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path

import httpx2
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError, LoadResourceError
from lightkube.models.core_v1 import (
    LocalVolumeSource,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PersistentVolumeSpec,
    VolumeNodeAffinity,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import PersistentVolume

from tools.cluster.instance import NODE_NAME, STORAGE_CLASS, VOLUMES_IN_NODE, Instance

AVAILABLE = 16
_LABEL = "release.energy/pool"
_RETRY_SECONDS = 2.0

log = logging.getLogger("supervisor.volumes")


def keep_volumes(instance: Instance, ending: threading.Event) -> None:
    """Keep the pool until `ending` is set; an API server that goes away is waited for."""
    client = Client(KubeConfig.from_file(str(instance.kubeconfig)), field_manager="embedded-cluster", trust_env=False)
    pool = Pool(client, instance.data / "volumes")
    while not ending.is_set():
        try:
            version = pool.tend()
            for event, volume in client.watch(
                PersistentVolume, labels={_LABEL: "true"}, server_timeout=60, resource_version=version
            ):
                if ending.is_set():
                    return
                if event == "DELETED" or phase(volume) in ("Bound", "Released", "Failed"):
                    pool.tend()
        except (ApiError, LoadResourceError, httpx2.HTTPError, OSError) as error:
            log.warning("volumes: %s; again in %.0f s", error, _RETRY_SECONDS)
            ending.wait(_RETRY_SECONDS)


class Pool:
    """The volumes of one node, whose folders lie in `folder`."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._folder = folder

    def tend(self) -> str | None:
        """Empty and remove what was released, then make what is missing; gives the version that was looked at."""
        listing = self._client.list(PersistentVolume, labels={_LABEL: "true"})
        volumes = list(listing)
        for volume in volumes:
            if phase(volume) in ("Released", "Failed") and not deleting(volume):
                self._remove(name_of(volume))
        for _ in range(shortage(volumes)):
            self._make()
        return listing.resourceVersion

    def _remove(self, name: str) -> None:
        shutil.rmtree(self._folder / name, onerror=_ignore_missing)
        self._client.delete(PersistentVolume, name)
        log.info("volume %s was released: emptied and removed", name)

    def _make(self) -> None:
        name = f"embedded-{uuid.uuid4().hex[:10]}"
        # root's until kubelet lets a pod's fsGroup in: a workload that forgets it fails here as it would elsewhere
        (self._folder / name).mkdir()
        self._client.create(volume_object(name))


def shortage(volumes: Iterable[PersistentVolume]) -> int:
    """How many volumes have to be made so that enough are free."""
    free = sum(1 for volume in volumes if phase(volume) in ("Available", "Pending", "") and not deleting(volume))
    return max(0, AVAILABLE - free)


def phase(volume: PersistentVolume) -> str:
    """The volume's phase, empty when it was just made."""
    return (volume.status.phase or "") if volume.status else ""


def deleting(volume: PersistentVolume) -> bool:
    """Whether the volume is on its way out."""
    return volume.metadata is not None and volume.metadata.deletionTimestamp is not None


def name_of(volume: PersistentVolume) -> str:
    """The volume's name; an object from the API server always has one."""
    return (volume.metadata.name or "") if volume.metadata else ""


def volume_object(name: str) -> PersistentVolume:
    """The object of a volume whose folder has the same name."""
    here = NodeSelectorRequirement(key="kubernetes.io/hostname", operator="In", values=[NODE_NAME])
    return PersistentVolume(
        metadata=ObjectMeta(
            name=name,
            labels={_LABEL: "true"},
            # tells the controller that somebody else carries out the reclaim policy
            annotations={"pv.kubernetes.io/provisioned-by": f"release.energy/{STORAGE_CLASS}"},
        ),
        spec=PersistentVolumeSpec(
            # a folder has no size: any claim fits, and the disk is the limit
            capacity={"storage": "100Gi"},
            accessModes=["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
            persistentVolumeReclaimPolicy="Delete",
            storageClassName=STORAGE_CLASS,
            volumeMode="Filesystem",
            local=LocalVolumeSource(path=str(VOLUMES_IN_NODE / name)),
            nodeAffinity=VolumeNodeAffinity(
                required=NodeSelector(nodeSelectorTerms=[NodeSelectorTerm(matchExpressions=[here])])
            ),
        ),
    )


def _ignore_missing(function: object, path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
