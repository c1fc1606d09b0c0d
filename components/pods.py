"""What every pod of the platform has in common: the restricted pod-security level, bounded resources, a writable /tmp.

Leaves to others: which containers there are and what they run.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core

APPLICATION_UID = 10001
POSTGRES_UID = 999

# A volume of a pod and where a container sees it.
Volume = tuple[core.v1.VolumeArgs, core.v1.VolumeMountArgs]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Requests and limits of one container, in Kubernetes quantities.

    There is no CPU limit: throttling a pod during a roll-out costs latency exactly when it is measured.
    """

    cpu: str = "50m"
    memory: str = "256Mi"

    def requirements(self) -> core.v1.ResourceRequirementsArgs:
        """The resource block of a container: CPU is requested, memory is requested and limited alike."""
        return core.v1.ResourceRequirementsArgs(
            requests={"cpu": self.cpu, "memory": self.memory}, limits={"memory": self.memory}
        )


def restricted_pod(uid: int = APPLICATION_UID) -> core.v1.PodSecurityContextArgs:
    """Pod-level security context that the restricted level of Pod Security Standards admits."""
    return core.v1.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=uid,
        run_as_group=uid,
        fs_group=uid,
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
    )


def restricted_container() -> core.v1.SecurityContextArgs:
    """Container-level security context: no privilege, no capability, nothing to write outside its volumes."""
    return core.v1.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        capabilities=core.v1.CapabilitiesArgs(drop=["ALL"]),
    )


def scratch(name: str, path: str) -> Volume:
    """An empty directory that lives as long as its pod, and where the container sees it."""
    return (
        core.v1.VolumeArgs(name=name, empty_dir=core.v1.EmptyDirVolumeSourceArgs(size_limit="1Gi")),
        core.v1.VolumeMountArgs(name=name, mount_path=path),
    )


def secret_file(name: str, secret: pulumi.Input[str], path: str) -> Volume:
    """A Secret as files readable by the pod's group only: secrets reach a process as files, never by environment."""
    return (
        core.v1.VolumeArgs(name=name, secret=core.v1.SecretVolumeSourceArgs(secret_name=secret, default_mode=0o440)),
        core.v1.VolumeMountArgs(name=name, mount_path=path, read_only=True),
    )


def config_file(
    name: str, config_map: pulumi.Input[str], path: str
) -> tuple[core.v1.VolumeArgs, core.v1.VolumeMountArgs]:
    """A ConfigMap as read-only files."""
    return (
        core.v1.VolumeArgs(name=name, config_map=core.v1.ConfigMapVolumeSourceArgs(name=config_map)),
        core.v1.VolumeMountArgs(name=name, mount_path=path, read_only=True),
    )
