"""What runs in an environment now: the newest healthy record, the pods that are there, and what is under way.

The records say what was released (`release.history`), the cluster how it stands. Nothing here is remembered elsewhere.

`status` as JSON (docs/json.md): {"format": 1, "environment", "version", "type", "deployment", "since", "images": {name:
reference}, "schema": {"revision"}, "pods": {"ready", "desired", "workloads": {name: {"ready", "desired", "version"}}},
"url", "hint", "newest": {"deployment", "status", "version", "reason"} | null, "open": null | {"deployment", "version",
"who", "opened", "steps": [{"step", "state"}]}}. `version`, `type`, `deployment`, `since` and `images` are those of the
newest healthy record and null (images: {}) before there is one; `url` is null where the API is not reached from outside
the cluster, and `hint` then says how to reach it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
import lightkube
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Service

from release import cluster
from release.errors import ClusterError
from release.jobs import job_states
from steps import kube
from steps.records import Record
from steps.store import RecordStore, summarize
from steps.vocabulary import LABEL_PART_OF, PART_OF, RecordStatus, Step

FORMAT = 1
API = "api"
VERSION_LABEL = "app.kubernetes.io/version"


@dataclass(frozen=True, kw_only=True)
class Pods:
    """Pods of one workload: how many are ready, how many there should be, and the version that was rolled out last."""

    ready: int
    desired: int
    version: str | None


@dataclass(frozen=True, kw_only=True)
class OpenDeployment:
    """A deployment whose record is open, and its step Jobs so far in their order: `running`, `passed` or `failed`."""

    deployment: int
    version: str
    who: str
    opened: str
    steps: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Status:
    """How an environment stands; `healthy` is the newest healthy record, `newest` the newest of all."""

    environment: str
    healthy: Record | None
    newest: Record | cluster.Damaged | None
    revision: str | None
    workloads: Mapping[str, Pods] = field(default_factory=dict)
    url: str | None
    hint: str | None
    open: OpenDeployment | None

    @property
    def ready(self) -> int:
        """Ready pods of all workloads."""
        return sum(pods.ready for pods in self.workloads.values())

    @property
    def desired(self) -> int:
        """Pods that all workloads should have."""
        return sum(pods.desired for pods in self.workloads.values())

    def document(self) -> dict[str, Any]:
        """The JSON document of the module's description."""
        healthy, newest, going = self.healthy, self.newest, self.open
        return {
            "format": FORMAT,
            "environment": self.environment,
            "version": healthy.version if healthy else None,
            "type": healthy.opening.type if healthy else None,
            "deployment": healthy.deployment if healthy else None,
            "since": healthy.closed if healthy else None,
            "images": dict(healthy.opening.images) if healthy else {},
            "schema": {"revision": self.revision},
            "pods": {
                "ready": self.ready,
                "desired": self.desired,
                "workloads": {name: asdict(pods) for name, pods in sorted(self.workloads.items())},
            },
            "url": self.url,
            "hint": self.hint,
            "newest": {
                "deployment": newest.deployment,
                "status": str(newest.status),
                "version": newest.version,
                "reason": newest.reason,
            }
            if newest
            else None,
            "open": {
                "deployment": going.deployment,
                "version": going.version,
                "who": going.who,
                "opened": going.opened,
                "steps": [{"step": step, "state": state} for step, state in going.steps],
            }
            if going
            else None,
        }


def status(client: lightkube.Client, environment: str) -> Status:
    """Read the environment's state; one that was never deployed to has neither record nor workload.

    Raises ClusterError when the cluster does not answer.
    """
    records = cluster.records(client, environment)
    newest = records[-1] if records else None
    readable = [record for record in records if isinstance(record, Record)]
    healthy = next((record for record in reversed(readable) if record.status is RecordStatus.HEALTHY), None)
    try:
        workloads = _workloads(client, environment)
        url, hint = _address(client, environment)
        going = _going(client, environment, newest)
    except httpx2.HTTPError as error:
        raise ClusterError(f"the cluster does not say how {environment} stands: {error}") from error
    return Status(
        environment=environment,
        healthy=healthy,
        newest=newest,
        revision=_revision(readable, cluster.store(client, environment)),
        workloads=workloads,
        url=url,
        hint=hint,
        open=going,
    )


def _revision(records: Sequence[Record], store: RecordStore) -> str | None:
    """The database's revision as the newest step saw it that looked."""
    for record in reversed(records):
        schema = record.schema
        if record.status is RecordStatus.OPEN:
            schema = summarize(store.results(record.deployment)).schema
        if schema.after or schema.before:
            return schema.after or schema.before
    return None


def _workloads(client: lightkube.Client, environment: str) -> dict[str, Pods]:
    found = {}
    for item in client.list(Deployment, namespace=environment, labels={LABEL_PART_OF: PART_OF}):
        name = (item.metadata.name if item.metadata else None) or ""
        labels = (item.metadata.labels if item.metadata else None) or {}
        found[name] = Pods(
            ready=(item.status.readyReplicas if item.status else None) or 0,
            desired=(item.spec.replicas if item.spec else None) or 0,
            version=labels.get(VERSION_LABEL),
        )
    return found


def _going(
    client: lightkube.Client, environment: str, newest: Record | cluster.Damaged | None
) -> OpenDeployment | None:
    if not isinstance(newest, Record) or newest.status is not RecordStatus.OPEN:
        return None
    states = job_states(client, environment, newest.deployment)
    return OpenDeployment(
        deployment=newest.deployment,
        version=newest.version,
        who=newest.opening.who,
        opened=newest.opened,
        steps=[(str(step), str(states[step])) for step in Step if step in states],
    )


def _address(client: lightkube.Client, environment: str) -> tuple[str | None, str | None]:
    """The API's address from outside the cluster, or how to get one."""
    forward = f"kubectl -n {environment} port-forward service/{API} 8000:80"
    try:
        service = client.get(Service, API, namespace=environment)
    except ApiError as error:
        if kube.status_code(error) == 404:
            return None, None
        raise
    spec, state = service.spec, service.status
    port = spec.ports[0] if spec and spec.ports else None
    if spec is None or port is None:
        return None, forward
    if spec.type == "LoadBalancer":
        ingress = (state.loadBalancer.ingress if state and state.loadBalancer else None) or []
        host = next((item.hostname or item.ip for item in ingress if item.hostname or item.ip), None)
        return (_url(host, port.port), None) if host else (None, f"no address yet; meanwhile: {forward}")
    if spec.type == "NodePort" and port.nodePort:
        host = _node_address(client)
        return (_url(host, port.nodePort), None) if host else (None, forward)
    return None, forward


def _node_address(client: lightkube.Client) -> str | None:
    """An address of a ready node: an external one before an internal one, None where nodes may not be read."""
    try:
        nodes = [node for node in client.list(Node) if _is_ready(node)]
    except ApiError as error:
        # Somebody with rights in the namespaces only still gets a status, with the hint instead of the address.
        if kube.status_code(error) == 403:
            return None
        raise
    addresses = [address for node in nodes for address in (node.status.addresses if node.status else None) or []]
    for kind in ("ExternalIP", "InternalIP"):
        for address in addresses:
            if address.type == kind and address.address:
                return address.address
    return None


def _is_ready(node: Node) -> bool:
    conditions = (node.status.conditions if node.status else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}" if port == 80 else f"http://{shown}:{port}"
