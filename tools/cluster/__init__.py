"""The embedded cluster: a single-node Kubernetes in its own namespaces of this machine, with a registry.

    from tools import cluster
    here = cluster.up()          # at once when it runs already
    here.kubeconfig, here.context, here.node_address, here.registry, here.registry_ca

Nothing is installed on the machine, and nothing outside of one git-ignored folder and the node's namespaces is changed.
What is deployed on the cluster is no business of this package.
"""

from __future__ import annotations

from pathlib import Path

from tools.cluster import cleanup, instance
from tools.cluster.condition import ComponentStatus, Status, is_up, status
from tools.cluster.instance import REGISTRY_HOST, STORAGE_CLASS
from tools.cluster.lifecycle import Binaries, Cluster, clean, cluster, down, up

__all__ = [
    "REGISTRY_HOST",
    "STORAGE_CLASS",
    "Binaries",
    "Cluster",
    "ComponentStatus",
    "Status",
    "clean",
    "cluster",
    "down",
    "is_up",
    "kubeconfig",
    "leftovers",
    "node_address",
    "registry_address",
    "registry_ca",
    "status",
    "up",
]


def node_address() -> str:
    """The node as this machine reaches it; NodePorts answer there. Raises ToolError when the cluster does not run."""
    return cluster().node_address


def kubeconfig() -> Path:
    """The administrator's kubeconfig. Raises ToolError when the cluster does not run."""
    return cluster().kubeconfig


def registry_address() -> str:
    """Where this machine pushes images, host:port. Raises ToolError when the cluster does not run."""
    return cluster().registry


def registry_ca() -> Path:
    """The certificate authority of the registry, PEM. Raises ToolError when the cluster does not run."""
    return cluster().registry_ca


def leftovers() -> cleanup.Leftovers:
    """What of this clone's cluster is on the machine outside of its folder, running or not."""
    return cleanup.leftovers(instance.load())
