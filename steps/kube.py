"""Thin access to the Kubernetes API: the calls the steps make, retried within a bound, with errors for people.

Which calls a step may make is `steps.permissions`'; what they mean is the steps' and the store's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

import httpx2
import lightkube
import msgspec
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.core.resource import NamespacedResource
from lightkube.resources.apps_v1 import Deployment, DeploymentScale
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Event, Pod
from lightkube.types import OnErrorAction, OnErrorResult, PatchType

from steps.backoff import delays
from steps.errors import ClusterError

T = TypeVar("T")
Json = dict[str, Any]

FIELD_MANAGER = "release-steps"
_SILENCE_SECONDS = 5.0
_MOST_FAILURES = 10
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


def client(kubeconfig: str | None = None, context: str | None = None) -> lightkube.Client:
    """A lightkube client: in-cluster by default, else KUBECONFIG, else `kubeconfig` and `context` where given.

    Raises ClusterError when there is no usable configuration.
    """
    try:
        _learn_types()
        config = KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env()
        return lightkube.Client(
            config.get(context),
            field_manager=FIELD_MANAGER,
            timeout=httpx2.Timeout(10.0),
        )
    except (ConfigError, OSError, KeyError, AssertionError) as error:
        where = kubeconfig or "the pod's service account, KUBECONFIG or ~/.kube/config"
        raise ClusterError(f"no access to a Kubernetes cluster from {where}: {error}") from error


def _learn_types() -> None:
    """Has msgspec work out the types before there are threads.

    It does so at first use and unprotected: two threads that decode related types for the first time end in a
    segmentation fault (12 of 12 with a short switch interval, none in 20 after this).
    """
    for kind in (ConfigMap, Deployment, DeploymentScale, Event, Job, Pod):
        msgspec.json.Decoder(kind)


def status_code(error: Exception) -> int | None:
    """The HTTP status of an API error, None when the API did not answer."""
    if isinstance(error, ApiError) and getattr(error, "status", None) is not None and error.status.code:
        return int(error.status.code)
    if isinstance(error, httpx2.HTTPStatusError) and error.response is not None:
        return int(error.response.status_code)
    return None


def _transient(error: Exception) -> bool:
    return isinstance(error, httpx2.TransportError) or status_code(error) in _TRANSIENT


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a watch saw: `items` are all objects of one kind by name as they are now."""

    kind: str
    items: Mapping[str, Json]


class Cluster:
    """The calls, on plain JSON objects; each is retried for `patience` seconds while the API cannot answer."""

    def __init__(
        self,
        api: lightkube.Client,
        *,
        patience: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api = api
        self.patience = patience
        self._sleep = sleep
        self._monotonic = monotonic

    def _call(
        self,
        what: str,
        call: Callable[[], T],
        *,
        missing: T | None = None,
        passing: tuple[int, ...] = (),
    ) -> T:
        """Runs `call`; an HTTP status in `passing` is raised as it is, everything else becomes a ClusterError."""
        give_up = self._monotonic() + self.patience
        waits = delays(0.25, 5.0)
        while True:
            delay = next(waits)
            try:
                return call()
            except httpx2.HTTPError as error:
                code = status_code(error)
                if code in passing:
                    raise
                if not _transient(error) or self._monotonic() + delay > give_up:
                    answer = f"HTTP {code}: {error}" if code else f"{type(error).__name__}: {error}"
                    raise ClusterError(f"cannot {what}: {answer}") from error
            self._sleep(delay)

    def config_map(self, namespace: str, name: str) -> Json | None:
        """One ConfigMap, None when there is none."""
        try:
            return self._call(
                f"read ConfigMap {namespace}/{name}",
                lambda: _json(self.api.get(ConfigMap, name, namespace=namespace)),
                passing=(404,),
            )
        except httpx2.HTTPStatusError:
            return None

    def config_maps(self, namespace: str, labels: Mapping[str, str]) -> list[Json]:
        """All ConfigMaps with these labels; empty when the namespace does not exist."""
        return self._call(
            f"list ConfigMaps in {namespace}",
            lambda: [_json(item) for item in self.api.list(ConfigMap, namespace=namespace, labels=dict(labels))],
        )

    def create_config_map(self, document: Json) -> bool:
        """Creates a ConfigMap; False when one of that name exists already (also when a lost answer had created it)."""
        metadata = document["metadata"]
        try:
            self._call(
                f"create ConfigMap {metadata['namespace']}/{metadata['name']}",
                lambda: self.api.create(cast(ConfigMap, ConfigMap.from_dict(document))),
                passing=(409,),
            )
        except httpx2.HTTPStatusError:
            return False
        return True

    def patch_config_map(self, namespace: str, name: str, patch: Json) -> bool:
        """Merge-patches a ConfigMap; with `metadata.resourceVersion` in it, False when it was changed meanwhile."""
        try:
            self._call(
                f"patch ConfigMap {namespace}/{name}",
                lambda: self.api.patch(
                    ConfigMap,
                    name,
                    patch,
                    namespace=namespace,
                    patch_type=PatchType.MERGE,
                ),
                passing=(409,),
            )
        except httpx2.HTTPStatusError:
            return False
        return True

    def jobs(self, namespace: str, labels: Mapping[str, str | None]) -> list[Json]:
        """All Jobs with these labels; a label given as None must only exist."""
        return self._call(
            f"list Jobs in {namespace}",
            lambda: [_json(item) for item in self.api.list(Job, namespace=namespace, labels=dict(labels))],
        )

    def suspend_job(self, namespace: str, name: str) -> bool:
        """Suspends a Job, so that its controller deletes its pods; False when the Job is gone."""
        try:
            self._call(
                f"suspend Job {namespace}/{name}",
                lambda: self.api.patch(
                    Job,
                    name,
                    {"spec": {"suspend": True}},
                    namespace=namespace,
                    patch_type=PatchType.MERGE,
                ),
                passing=(404,),
            )
        except httpx2.HTTPStatusError:
            return False
        return True

    def deployment(self, namespace: str, name: str) -> Json | None:
        """One Deployment, None when there is none."""
        try:
            return self._call(
                f"read Deployment {namespace}/{name}",
                lambda: _json(self.api.get(Deployment, name, namespace=namespace)),
                passing=(404,),
            )
        except httpx2.HTTPStatusError:
            return None

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Sets a Deployment's scale subresource."""
        self._call(
            f"scale Deployment {namespace}/{name} to {replicas}",
            lambda: self.api.patch(
                DeploymentScale,
                name,
                {"spec": {"replicas": replicas}},
                namespace=namespace,
                patch_type=PatchType.MERGE,
            ),
        )

    def last_log_line(self, namespace: str, pod: str, container: str) -> str | None:
        """The last line a container wrote, None when there is none or it cannot be read (never an error)."""
        try:
            lines = list(
                self.api.log(
                    pod,
                    namespace=namespace,
                    container=container,
                    tail_lines=5,
                    newlines=False,
                )
            )
        except httpx2.HTTPError:
            return None
        written = [line.strip() for line in lines if line.strip()]
        return written[-1] if written else None

    def watch(self, namespace: str, *sources: Source) -> Watch:
        """Watches the sources together; use as a context manager."""
        return Watch(self.api, namespace, sources)


def _json(item: Any) -> Json:
    return cast(Json, item.to_dict())


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind to watch: `pods`, `deployments` or `jobs`, narrowed by labels (None: the label only has to exist)."""

    kind: str
    labels: Mapping[str, Any] = field(default_factory=dict)


_KINDS: Mapping[str, type[NamespacedResource]] = {
    "pods": Pod,
    "deployments": Deployment,
    "jobs": Job,
}


class _Listener(httpx2.HTTPTransport):
    """Ends a read after some silence, which lightkube's watches otherwise never do."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request with a bounded wait for each of its bytes."""
        timeout = {**request.extensions.get("timeout", {}), "read": _SILENCE_SECONDS}
        request.extensions = {**request.extensions, "timeout": timeout}
        return super().handle_request(request)


class Watch:
    """Lists, then watches, and lists again when the API forgot where the watch was.

    Threads, because the client's watch does not come back while nothing happens, and a deadline is exactly for that.
    Each has its own connection and closes it itself, some seconds after the context was left: closed from outside, its
    socket's number would go to the next file opened, whose bytes the thread would then read.
    """

    def __init__(self, api: lightkube.Client, namespace: str, sources: tuple[Source, ...]) -> None:
        self._config = api.config
        self._namespace = namespace
        self._sources = sources
        self._events: queue.Queue[Change | Exception] = queue.Queue()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        for source in self._sources:
            threading.Thread(target=self._run, args=(source,), name=f"watch {source.kind}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def next(self, timeout: float) -> Change | None:
        """The next change, None when `timeout` seconds passed without one.

        Raises ClusterError when watching is refused, or when the API has been away for too long.
        """
        try:
            event = self._events.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None
        if isinstance(event, Exception):
            raise ClusterError(f"cannot watch in namespace {self._namespace}: {event}") from event
        return event

    def _run(self, source: Source) -> None:
        try:
            verify = verify_cluster(self._config.cluster, self._config.user or User(), self._config.abs_file)
            with lightkube.Client(
                self._config,
                namespace=self._namespace,
                timeout=httpx2.Timeout(_SILENCE_SECONDS),
                transport=_Listener(verify=verify),
            ) as api:
                self._watch(api, source)
        except Exception as error:
            # Whatever ends the thread must reach who waits for it.
            self._events.put(error)

    def _watch(self, api: lightkube.Client, source: Source) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                for change in self._follow(api, source):
                    failures = 0
                    self._events.put(change)
            except httpx2.HTTPError as error:
                failures += 1
                if self._closed.is_set():
                    return
                if status_code(error) != 410 and (not _transient(error) or failures > _MOST_FAILURES):
                    raise
                self._closed.wait(min(0.25 * 2**failures, 5.0))

    def _follow(self, api: lightkube.Client, source: Source) -> Iterator[Change]:
        resource = _KINDS[source.kind]
        labels = dict(source.labels) or None
        listing = api.list(resource, namespace=self._namespace, labels=labels)
        items = {item.metadata.name: _json(item) for item in cast(Any, listing)}
        yield Change(kind=source.kind, items=dict(items))
        for action, item in api.watch(
            resource,
            namespace=self._namespace,
            labels=labels,
            resource_version=listing.resourceVersion,
            on_error=self._on_error,
        ):
            if self._closed.is_set():
                return
            name = cast(Any, item).metadata.name
            if action == "DELETED":
                items.pop(name, None)
            else:
                items[name] = _json(item)
            yield Change(kind=source.kind, items=dict(items))

    def _on_error(self, error: Exception, _: int) -> OnErrorResult:
        """Goes on where the watch was after mere silence; anything else is for the list to begin anew."""
        if self._closed.is_set():
            return OnErrorResult(OnErrorAction.STOP)
        return OnErrorResult(OnErrorAction.RETRY if isinstance(error, httpx2.ReadTimeout) else OnErrorAction.RAISE)
