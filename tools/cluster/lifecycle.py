"""Bringing an instance up, down and away, and telling how it is. The parts are in the modules beside this one."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tools import debian, lock
from tools.cluster import bootstrap, certificates, cleanup, node, outside, privilege, programs
from tools.cluster import instance as instances
from tools.cluster.components import NAMES
from tools.cluster.condition import is_up, unready
from tools.cluster.health import Verdict
from tools.cluster.instance import REGISTRY_HOST, REGISTRY_PORT, Instance
from tools.errors import ToolError
from tools.paths import CLUSTER, LOCAL
from tools.progress import Phase, duration, phase, say

_START_SECONDS = 300.0
_SETTLE_SECONDS = 120.0
_POLL_SECONDS = 0.1
# short lives in a row: a port taken for a moment mends itself in fewer
_HOPELESS = 6


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """Folders with what the toolchain builds: `kubernetes` holds hyperkube and etcd, `coredns` holds coredns."""

    kubernetes: Path
    coredns: Path

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """The binaries that the node needs."""
        return (self.kubernetes / "hyperkube", self.kubernetes / "etcd", self.coredns / "coredns")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster: how to reach it and its registry.

    `registry` is host:port as this machine pushes to it, over TLS signed by `registry_ca`; in an image reference the
    same registry is called `registry_name`.
    """

    kubeconfig: Path
    context: str
    node_address: str
    registry: str
    registry_name: str
    registry_ca: Path


def up(binaries: Binaries | None = None) -> Cluster:
    """Have the cluster running and ready; returns at once when it is.

    Raises ToolError when it cannot run here or does not get ready.
    """
    privilege.demand_linux()
    if is_up():
        return cluster()
    binaries = binaries or _toolchain()
    if not privilege.is_root():
        privilege.as_root(["up", "--kubernetes", str(binaries.kubernetes), "--coredns", str(binaries.coredns)])
        return cluster()
    with _alone("up"):
        if not is_up():
            with phase("embedded cluster", estimate=15) as current:
                _bring_up(binaries, current)
    return cluster()


def down() -> None:
    """Stop the cluster and keep its data; nothing of it stays on the machine outside of its folder."""
    _change("down", _stop)


def clean() -> None:
    """Stop the cluster, whatever state it is in, and remove its data too."""
    _change("clean", _clean)


def cluster() -> Cluster:
    """How the running cluster is reached; raises ToolError when it does not run."""
    instance = instances.load()
    if outside.running(instance) is None:
        raise ToolError("the embedded cluster does not run: start it with `make up` or `python -m tools.cluster up`.")
    return Cluster(
        kubeconfig=instance.kubeconfig,
        context=instance.context,
        node_address=str(instance.node_address),
        registry=f"{instance.node_address}:{REGISTRY_PORT}",
        registry_name=REGISTRY_HOST,
        registry_ca=instance.registry_ca,
    )


def _bring_up(binaries: Binaries, current: Phase) -> None:
    instance = instances.load()
    if outside.running(instance) is None:
        instance = _start(binaries, current)
    else:
        _settle(instance, binaries, current)
    instance.complete_file.touch()
    current.note(f"{instance.context} on {instance.node_address}")


def _start(binaries: Binaries, current: Phase) -> Instance:
    system = debian.ensure(programs.PACKAGES).resolve()
    cleanup.remove(instances.load())
    instance = instances.choose()
    certificates.ensure(instance)
    programs.link(instance, binaries.kubernetes, system)
    since = dt.datetime.now(dt.UTC).replace(microsecond=0)
    visible = (system, *sorted({file.resolve().parent for file in binaries.files}))
    started = outside.start(node.Node(instance=instance, system=system, visible=visible))
    try:
        _follow(started, instance, system / "bin/busybox", binaries.coredns / "coredns", current)
        current.detail("waiting for node and DNS")
        bootstrap.wait_ready(instance, since, _SETTLE_SECONDS)
    except ToolError:
        # what does not get ready now never will: the next `up` starts afresh
        _stop(instance)
        raise
    finally:
        started.close()
    return instance


def _follow(started: outside.Started, instance: Instance, busybox: Path, coredns: Path, current: Phase) -> None:
    """Listen to the supervisor until every component is ready, and give the cluster its images and manifests."""
    ready: set[str] = set()
    for event in started.events(_START_SECONDS):
        name = event.get("component", "")
        if event.get("failures", 0) >= _HOPELESS:
            raise ToolError(
                f"the embedded cluster cannot start: {name} ended {event['failures']} times ({event['exit']}).\n"
                f"{outside.tail(instance, name)}"
            )
        if event.get("verdict") != Verdict.READY:
            continue
        ready.add(name)
        current.detail(f"{len(ready)} of {len(NAMES)} ready, last {name} ({duration(current.elapsed)})")
        if name == "containerd":
            bootstrap.import_images(instance, busybox, coredns)
        if name == "kube-apiserver":
            bootstrap.apply_manifests(instance)
        if ready >= set(NAMES):
            return


def _settle(instance: Instance, binaries: Binaries, current: Phase) -> None:
    """Finish what an interrupted `up` began, and wait for a component that is being restarted."""
    current.detail("it runs, waiting until all of it is ready")
    anytime = dt.datetime.min.replace(tzinfo=dt.UTC)
    deadline = time.monotonic() + _SETTLE_SECONDS
    while missing := unready(instance):
        if time.monotonic() > deadline:
            raise ToolError(
                f"the embedded cluster runs, but not ready after {_SETTLE_SECONDS:.0f} s: {', '.join(missing)}. "
                f"See `python -m tools.cluster logs {missing[0]}`; `down` and `up` start afresh."
            )
        time.sleep(_POLL_SECONDS)
    if not instance.complete_file.is_file():
        system = node.read(instance.run / "node.json").system
        bootstrap.import_images(instance, system / "bin/busybox", binaries.coredns / "coredns")
        bootstrap.apply_manifests(instance)
    bootstrap.wait_ready(instance, anytime, _SETTLE_SECONDS)


def _change(what: str, act: Callable[[Instance], None]) -> None:
    privilege.demand_linux()
    if not CLUSTER.exists() and not cleanup.leftovers(instances.load()):
        say("embedded cluster: nothing is there")
        return
    if not privilege.is_root():
        privilege.as_root([what])
        return
    with _alone(what), phase(f"embedded cluster {what}"):
        act(instances.load())


def _alone(what: str) -> AbstractContextManager[None]:
    # beside the folder, which `clean` removes while others may be waiting
    return lock.hold(LOCAL / "cluster.lock", command=f"embedded cluster {what}", wait=True)


def _stop(instance: Instance) -> None:
    outside.stop(instance)
    cleanup.remove(instance)


def _clean(instance: Instance) -> None:
    _stop(instance)
    if instance.folder.exists():
        shutil.rmtree(instance.folder)


def _toolchain() -> Binaries:
    from tools import toolchain

    found = toolchain.ensure(["kubernetes", "coredns"])
    return Binaries(kubernetes=found["kubernetes"].folder, coredns=found["coredns"].folder)
