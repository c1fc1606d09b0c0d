"""What makes a started node a usable cluster: its own images imported, its manifests applied, node and DNS ready."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
from lightkube import Client, KubeConfig
from lightkube.codecs import load_all_yaml
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Node, Pod

from tools.cluster import images
from tools.cluster.instance import NODE_NAME, Instance
from tools.cluster.outside import run_inside
from tools.errors import ToolError

_MANIFESTS = Path(__file__).resolve().parent / "manifests"
_POLL_SECONDS = 0.2


def client(instance: Instance) -> Client:
    """A client of the cluster's API as its administrator; proxies of the caller's environment are ignored."""
    config = KubeConfig.from_file(str(instance.kubeconfig))
    return Client(config, field_manager="embedded-cluster", trust_env=False, timeout=httpx2.Timeout(10))


def import_images(instance: Instance, busybox: Path, coredns: Path) -> None:
    """Import the node's own images unless exactly these were imported into this data before."""
    archive = instance.run / "images.tar"
    images.write_archive(archive, [images.pause(busybox), images.dns(coredns)])
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    mark = instance.data / "images.sha256"
    if not (mark.is_file() and mark.read_text() == digest):
        run_inside(instance, ["ctr", "images", "import", str(archive)])
        mark.write_text(digest)
    archive.unlink()


def apply_manifests(instance: Instance) -> None:
    """Apply every manifest; what somebody else set on the same objects stays."""
    cluster = client(instance)
    for file in sorted(_MANIFESTS.glob("*.yaml")):
        for resource in load_all_yaml(file.read_text()):
            cluster.apply(resource, force=True)


def wait_ready(instance: Instance, since: dt.datetime, seconds: float) -> None:
    """Wait until node and DNS report ready, newer than `since`: what is stored from the last run does not count."""
    cluster = client(instance)
    for what, ready in (("node", node_ready), ("DNS", dns_ready)):
        _wait(what, ready, cluster, since, seconds)


def node_ready(cluster: Client, since: dt.datetime) -> bool:
    """Whether the node reported ready after `since`."""
    found = cluster.get(Node, NODE_NAME)
    conditions = (found.status.conditions if found.status else None) or []
    return any(
        one.type == "Ready"
        and one.status == "True"
        and one.lastHeartbeatTime is not None
        and one.lastHeartbeatTime >= since
        for one in conditions
    )


def dns_ready(cluster: Client, since: dt.datetime) -> bool:
    """Whether a DNS server that was started after `since` is ready."""
    for pod in cluster.list(Pod, namespace="kube-system", labels={"k8s-app": "kube-dns"}):
        for status in (pod.status.containerStatuses if pod.status else None) or []:
            running = status.state.running if status.state else None
            if status.ready and running is not None and running.startedAt is not None and running.startedAt >= since:
                return True
    return False


def _wait(
    what: str, ready: Callable[[Client, dt.datetime], bool], cluster: Client, since: dt.datetime, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    problem = ""
    while True:
        try:
            if ready(cluster, since):
                return
            problem = "it does not report ready"
        except (ApiError, httpx2.HTTPError) as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise ToolError(
                f"the embedded cluster's {what} is not ready after {seconds:.0f} s: {problem}. "
                "See `python -m tools.cluster status` and `python -m tools.cluster logs kubelet`."
            )
        # the condition and its time stamp change together with others of the object: a watch would fire more often
        time.sleep(_POLL_SECONDS)
