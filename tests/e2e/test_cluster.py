"""The embedded cluster under faults: a second instance in a folder of its own, beside the one that is in use.

The tests are one story about one cluster and run in the order of the file: brought up, used, hurt, stopped, started
again, crashed, removed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube import Client
from lightkube.codecs import load_all_yaml
from lightkube.core.exceptions import ApiError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod

from tools import debian, toolchain
from tools.cluster import bootstrap, cleanup, condition, images
from tools.cluster import instance as instances
from tools.cluster.components import NAMES
from tools.cluster.instance import REGISTRY_HOST, REGISTRY_PORT, Instance
from tools.paths import DEBIAN, ROOT

NODE_PORT = 30080
NAMESPACE = "cluster-test"
HUNG = "registry"
MACHINE_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the embedded cluster needs root")


@dataclass(kw_only=True)
class Second:
    """A second instance: its commands run in processes of their own, which read its folder from RELEASE_LOCAL."""

    local: Path
    binaries: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def instance(self) -> Instance:
        return instances.load(self.local / "cluster")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tools.cluster", *arguments]
        if arguments == ("up",):
            command += self.binaries
        environment = {**os.environ, "RELEASE_LOCAL": str(self.local)}
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> str:
        began = time.monotonic()
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, f"{arguments}: {errors}\n{output}"
        # the first of each is the one that does something
        self.seconds.setdefault(" ".join(arguments), time.monotonic() - began)
        return output

    def client(self) -> Client:
        return bootstrap.client(self.instance)

    def status(self) -> dict[str, Any]:
        process = self.start("status", "--json")
        output, errors = process.communicate(timeout=60)
        assert output, errors
        return dict(json.loads(output))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    built = toolchain.ensure(["kubernetes", "coredns"])
    local = tmp_path_factory.mktemp("second instance").resolve()
    (local / "debian").symlink_to(DEBIAN)
    folders = ("--kubernetes", str(built["kubernetes"].folder), "--coredns", str(built["coredns"].folder))
    cluster = Second(local=local, binaries=folders)
    yield cluster
    cluster.run("clean")
    print("\nseconds:", {name: round(seconds, 1) for name, seconds in cluster.seconds.items()})


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def machine_settings() -> dict[str, str]:
    return {name: Path("/proc/sys", name).read_text() for name in MACHINE_SETTINGS}


def processes() -> set[str]:
    """Command lines that name the second instance or are of its kind, with their process number."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(f"{entry.name} {(entry / 'cmdline').read_bytes().replace(bytes(1), b' ').decode().strip()}")
            except OSError:
                continue
    return {one for one in found if "kube" in one or "etcd" in one or "containerd" in one or "tools.cluster" in one}


def push(cluster: Second) -> str:
    """Push an image with a shell and a web server to the second instance's registry; gives its reference by digest."""
    instance = cluster.instance
    busybox = debian.SYSTEM / "bin/busybox"
    content = images.layer(images.pause(busybox))
    layer_digest = hashlib.sha256(content).hexdigest()
    described = images.configuration(images.pause(busybox), layer_digest)
    described["config"]["StopSignal"] = "SIGINT"
    config = json.dumps(described).encode()
    kinds = "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kinds[0],
            "config": {"mediaType": kinds[1], "size": len(config), "digest": f"sha256:{sha256(config)}"},
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                    "size": len(content),
                    "digest": f"sha256:{layer_digest}",
                }
            ],
        }
    ).encode()
    url = f"https://{instance.node_address}:{REGISTRY_PORT}/v2/box"
    with httpx2.Client(verify=ssl.create_default_context(cafile=instance.registry_ca), trust_env=False) as registry:
        for blob in (content, config):
            place = registry.post(f"{url}/blobs/uploads/").headers["location"]
            done = registry.put(f"{place}&digest=sha256:{sha256(blob)}", content=blob)
            assert done.status_code == 201, done.text
        done = registry.put(f"{url}/manifests/1", content=manifest, headers={"content-type": kinds[0]})
        assert done.status_code == 201, done.text
    return f"{REGISTRY_HOST}/box@sha256:{sha256(manifest)}"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def workload(image: str) -> list[Any]:
    """A web server as a stranger would deploy it: not root, read-only, a claim with fsGroup, names looked up by DNS."""
    script = (
        "trap 'echo interrupted > /data/end; kill $!; exit 0' INT\n"
        "test -f /data/id || { read -r id < /proc/sys/kernel/random/uuid; echo $id > /data/id; }\n"
        "/bin/busybox httpd -f -p 8080 -h /data & wait $!"
    )
    security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    look_up = ["/bin/busybox", "nslookup", "kubernetes.default.svc.cluster.local"]
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": NAMESPACE},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "securityContext": {
                            "runAsNonRoot": True,
                            "runAsUser": 10001,
                            "runAsGroup": 10001,
                            "fsGroup": 10001,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "initContainers": [
                            {"name": "dns", "image": image, "command": look_up, "securityContext": security}
                        ],
                        "containers": [
                            {
                                "name": "web",
                                "image": image,
                                "command": ["/bin/sh", "-c", script],
                                "readinessProbe": {"httpGet": {"path": "/id", "port": 8080}, "periodSeconds": 1},
                                "securityContext": security,
                                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                            }
                        ],
                        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {
                "type": "NodePort",
                "selector": {"app": "web"},
                "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
            },
        },
    ]
    return list(load_all_yaml(yaml.safe_dump_all(documents)))


def visit(cluster: Second) -> str:
    """What the web server answers by NodePort from this machine, over a new connection."""
    with httpx2.Client(trust_env=False, timeout=5) as client:
        return client.get(f"http://{cluster.instance.node_address}:{NODE_PORT}/id").raise_for_status().text.strip()


def ask(cluster: Second) -> str | None:
    """The same, or None while it does not answer."""
    try:
        return visit(cluster)
    except httpx2.HTTPError:
        return None


def test_two_ups_at_once_bring_up_one_cluster_and_the_second_says_whom_it_waits_for(second: Second) -> None:
    before = machine_settings()
    began = time.monotonic()
    both = [second.start("up")]
    lock = second.local / "cluster.lock"
    wait_for("the first holds the lock", lambda: lock.is_file() and lock.read_text())
    both.append(second.start("up"))
    said = [process.communicate(timeout=300)[1] for process in both]
    second.seconds["up, the first time, twice at once"] = time.monotonic() - began

    assert [process.returncode for process in both] == [0, 0], said
    assert "waiting for" not in said[0]
    assert f"waiting for pid {both[0].pid} " in said[1]
    assert second.status()["up"] is True
    assert machine_settings() == before


def test_a_cluster_that_is_up_is_left_alone_and_says_that_it_is_embedded(second: Second) -> None:
    supervisor = second.status()["supervisor"]
    second.run("up")

    assert second.status()["supervisor"] == supervisor
    assert second.instance.kubeconfig.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(second.instance.kubeconfig.read_text())
    assert config["current-context"] == f"embedded-{second.instance.id}"
    (node,) = second.client().list(Node)
    assert node.metadata is not None
    assert (node.metadata.labels or {})["release.energy/embedded"] == "true"
    system = second.client().get(Namespace, "kube-system")
    assert system.metadata is not None
    assert (system.metadata.annotations or {})["release.energy/embedded"] == "true"


def test_an_image_from_its_registry_by_digest_serves_from_a_claim_to_this_machine(second: Second) -> None:
    began = time.monotonic()
    for resource in workload(push(second)):
        second.client().apply(resource)
    wait_for("the web server's answer", lambda: ask(second), 90)
    second.seconds["push, pull, claim, answer"] = time.monotonic() - began

    assert len(ask(second) or "") == 36
    claim = second.client().get(PersistentVolumeClaim, "data", namespace=NAMESPACE)
    assert claim.spec is not None
    file = second.instance.data / "volumes" / str(claim.spec.volumeName) / "id"
    assert (file.read_text().strip(), file.stat().st_uid, file.stat().st_gid) == (ask(second), 10001, 10001)


def test_every_component_that_dies_or_hangs_comes_back_while_the_workload_answers(second: Second) -> None:
    failures: list[str] = []
    answered = 0
    killed = ""
    ended = threading.Event()

    def keep_visiting() -> None:
        nonlocal answered
        while not ended.wait(0.05):
            try:
                visit(second)
                answered += 1
            except httpx2.HTTPError as error:
                failures.append(f"{now():%H:%M:%S} after {killed} was killed: {error!r}")

    # a kubelet that starts reports its pods unready until it has probed them, in every cluster: nobody visits then
    kill_and_wait(second, "kubelet")
    wait_for("the web server's answer", lambda: ask(second))
    hung = component(second, HUNG)
    began = time.monotonic()
    os.kill(hung["pid"], signal.SIGSTOP)
    visitor = threading.Thread(target=keep_visiting)
    visitor.start()
    try:
        for name in NAMES:
            if name not in (HUNG, "kubelet"):
                killed = name
                kill_and_wait(second, name)
        wait_for(f"the hung {HUNG} restarted", lambda: is_back(second, HUNG, hung["restarts"]), 60)
        second.seconds[f"{HUNG} hung, ready"] = time.monotonic() - began
    finally:
        ended.set()
        visitor.join()
    kill_and_wait(second, HUNG)

    assert (failures, answered > 50) == ([], True)
    (pod,) = second.client().list(Pod, namespace=NAMESPACE)
    assert pod.status is not None
    assert [one.restartCount for one in pod.status.containerStatuses or []] == [0]


def component(second: Second, name: str) -> dict[str, Any]:
    return next(dict(one) for one in second.status()["components"] if one["name"] == name)


def is_back(second: Second, name: str, restarts: int) -> bool:
    life = condition.read(second.instance)[name]
    return bool(life["ready"]) and life["restarts"] == restarts + 1


def kill_and_wait(second: Second, name: str) -> None:
    before = component(second, name)
    # who reports the node has to report it anew; from the others it needs no more than that it stays ready
    since = now() if name in ("kubelet", "containerd") else dt.datetime.min.replace(tzinfo=dt.UTC)
    began = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        if not is_back(second, name, before["restarts"]):
            return False
        try:
            return bootstrap.node_ready(second.client(), since)
        except (ApiError, httpx2.HTTPError):
            return False

    wait_for(f"{name} and the node ready after SIGKILL", back, 60)
    assert condition.read(second.instance)[name]["last_exit"] == "SIGKILL"
    second.seconds[f"{name} killed, node ready"] = time.monotonic() - began


def test_down_leaves_nothing_running_and_up_brings_the_data_back(second: Second) -> None:
    second.client().create(ConfigMap(metadata=ObjectMeta(name="kept", namespace=NAMESPACE), data={"a": "1"}))
    written = ask(second)
    second.run("down")
    (ending,) = (second.instance.data / "volumes").glob("*/end")
    assert ending.read_text() == "interrupted\n", "the image's own stop signal did not reach the container"

    assert not cleanup.leftovers(second.instance)
    assert not any(str(second.local) in one for one in processes())
    second.run("down")
    began = time.monotonic()
    second.run("up")
    second.seconds["up, with data"] = time.monotonic() - began
    assert second.client().get(ConfigMap, "kept", namespace=NAMESPACE).data == {"a": "1"}
    wait_for("the web server's answer", lambda: ask(second), 60)
    assert ask(second) == written


def test_a_deleted_claim_gives_its_volume_back_empty(second: Second) -> None:
    claim = second.client().get(PersistentVolumeClaim, "data", namespace=NAMESPACE)
    assert claim.spec is not None
    name = str(claim.spec.volumeName)
    second.client().delete(Deployment, "web", namespace=NAMESPACE)
    second.client().delete(PersistentVolumeClaim, "data", namespace=NAMESPACE)

    def replaced() -> bool:
        volumes = list(second.client().list(PersistentVolume))
        names = [volume.metadata.name for volume in volumes if volume.metadata]
        free = [volume for volume in volumes if volume.status and volume.status.phase == "Available"]
        return name not in names and len(free) >= 16

    wait_for("sixteen free volumes without the old one", replaced, 60)
    assert not (second.instance.data / "volumes" / name).exists()


def test_after_the_supervisor_is_killed_up_goes_on_with_the_data(second: Second) -> None:
    second.client().create(ConfigMap(metadata=ObjectMeta(name="late", namespace=NAMESPACE), data={"b": "2"}))
    os.kill(second.status()["supervisor"], signal.SIGKILL)

    began = time.monotonic()
    second.run("up")
    second.seconds["up, after a crash"] = time.monotonic() - began
    assert second.client().get(ConfigMap, "late", namespace=NAMESPACE).data == {"b": "2"}


def test_clean_after_a_killed_supervisor_leaves_nothing(second: Second) -> None:
    instance = second.instance
    supervisor = second.status()["supervisor"]
    while_up = cleanup.leftovers(instance)
    assert while_up.processes and while_up.interfaces and while_up.cgroups
    others = processes() - {one for one in processes() if int(one.split()[0]) in pids(while_up)}
    os.kill(supervisor, signal.SIGKILL)

    second.run("clean")
    assert cleanup.leftovers(instance) == cleanup.Leftovers(
        processes=(), mounts=(), interfaces=(), namespaces=(), cgroups=(), rules=()
    )
    assert not instance.folder.exists()
    assert not any(str(second.local) in one for one in processes())
    assert {one for one in others if "tools.cluster.supervisor" in one} <= processes()
    second.run("clean")


def pids(found: cleanup.Leftovers) -> set[int]:
    return {int(line.split()[0]) for line in found.processes}
