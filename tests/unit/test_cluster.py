"""The embedded cluster's parts that need no root: names, certificates, images, judgement, volumes, packages."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from lightkube import Client
from lightkube.models.core_v1 import PersistentVolumeStatus
from lightkube.resources.core_v1 import PersistentVolume

from tools import debian
from tools.cluster import (
    certificates,
    cgroups,
    ending,
    images,
    node,
    privilege,
    programs,
    settings,
    supervisor,
    volumes,
)
from tools.cluster import instance as instances
from tools.cluster.components import NAMES, components
from tools.cluster.health import Answer, Judge, Verdict
from tools.cluster.instance import Instance
from tools.errors import ToolError

NETWORK = IPv4Network("10.199.4.8/30")


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(folder=tmp_path / "cluster", subnet=NETWORK)


class TestNames:
    def test_two_clones_share_no_name_of_the_machine(self) -> None:
        one, other = (
            Instance(folder=Path(path), subnet=NETWORK) for path in ("/a/.local/cluster", "/b/.local/cluster")
        )
        assert {one.name, one.interface, one.context}.isdisjoint({other.name, other.interface, other.context})
        # the kernel cuts nothing off: it refuses longer names of interfaces
        assert len(one.interface) <= 15

    def test_machine_and_node_are_the_two_hosts_of_the_subnet(self, instance: Instance) -> None:
        assert [str(instance.host_address), str(instance.node_address)] == ["10.199.4.9", "10.199.4.10"]

    @given(st.text(min_size=1, max_size=60).filter(lambda text: "\0" not in text))
    def test_every_folder_has_sixteen_subnets_of_the_range_to_try(self, name: str) -> None:
        tried = instances.preferred(Path("/") / name)
        assert len(tried) == 16
        assert all(one.prefixlen == 30 and one.subnet_of(instances.NODE_NETWORKS) for one in tried)

    def test_a_subnet_that_overlaps_an_address_or_a_route_is_not_taken(self) -> None:
        addresses = [{"addr_info": [{"family": "inet", "local": "10.199.4.9", "prefixlen": 30}, {"family": "inet6"}]}]
        routes = [{"dst": "default"}, {"dst": "0.0.0.0/0"}, {"dst": "10.199.128.0/17"}, {"dst": "fe80::/64"}]
        used = instances.networks(json.dumps(addresses), json.dumps(routes))
        assert not instances.free(NETWORK, used)
        assert not instances.free(IPv4Network("10.199.200.0/30"), used)
        assert instances.free(IPv4Network("10.199.4.12/30"), used)

    def test_the_chosen_subnet_is_kept_until_something_else_uses_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used: list[IPv4Network] = []
        monkeypatch.setattr(instances, "_used_networks", lambda: used)
        first = instances.choose(tmp_path)
        assert instances.load(tmp_path) == instances.choose(tmp_path) == first
        used.append(first.subnet)
        second = instances.choose(tmp_path)
        assert not second.subnet.overlaps(first.subnet)
        assert instances.load(tmp_path) == second

    def test_a_machine_with_routes_over_the_whole_range_is_told_what_else_to_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(instances, "_used_networks", lambda: [IPv4Network("10.0.0.0/8")])
        with pytest.raises(ToolError, match="kubernetes:context: NAME"):
            instances.choose(tmp_path)


class TestCertificates:
    def test_everybody_is_signed_by_the_one_authority_and_serves_only_its_own_names(self, instance: Instance) -> None:
        certificates.ensure(instance)
        authority = x509.load_pem_x509_certificate((instance.pki / "ca.crt").read_bytes())
        for identity in certificates.identities(instance):
            one = x509.load_pem_x509_certificate((instance.pki / f"{identity.name}.crt").read_bytes())
            one.verify_directly_issued_by(authority)
            assert len(names(one)) == len(identity.hosts)
        registry = x509.load_pem_x509_certificate((instance.pki / "registry.crt").read_bytes())
        assert names(registry) == {
            ipaddress.ip_address("10.199.4.10"),
            ipaddress.ip_address("127.0.0.1"),
            "registry.embedded",
        }

    def test_keys_and_kubeconfigs_are_the_owners_alone(self, instance: Instance) -> None:
        certificates.ensure(instance)
        secret = [*instance.pki.glob("*.key"), *instance.pki.glob("*.kubeconfig"), instance.kubeconfig]
        assert len(secret) == 2 + 8 + 5 + 1
        assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
        assert instance.pki.stat().st_mode & 0o777 == 0o700

    def test_nothing_is_made_again_while_it_is_good(self, instance: Instance) -> None:
        certificates.ensure(instance)
        before = contents(instance.pki)
        certificates.ensure(instance)
        assert contents(instance.pki) == before

    def test_another_address_renews_who_serves_there_and_keeps_the_authority_and_the_tokens(
        self, instance: Instance
    ) -> None:
        certificates.ensure(instance)
        before = contents(instance.pki)
        moved = Instance(folder=instance.folder, subnet=IPv4Network("10.199.8.0/30"))
        certificates.ensure(moved)
        after = contents(instance.pki)
        changed = {name for name in before if before[name] != after[name] and not name.endswith(".kubeconfig")}
        assert changed == {f"{name}.{kind}" for name in ("apiserver", "kubelet", "registry") for kind in ("crt", "key")}
        assert "https://10.199.8.2:6443" in instance.kubeconfig.read_text()

    def test_another_authority_renews_everybody(self, instance: Instance) -> None:
        certificates.ensure(instance)
        before = contents(instance.pki)
        (instance.pki / "ca.key").unlink()
        certificates.ensure(instance)
        after = contents(instance.pki)
        assert {name for name in before if before[name] == after[name]} == {"sa.key", "sa.pub"}


class TestSettings:
    def test_the_name_in_image_references_leads_to_this_nodes_registry(
        self, instance: Instance, tmp_path: Path
    ) -> None:
        settings.write(instance, tmp_path, "overlayfs")
        containerd = tomllib.loads((instance.settings / "containerd.toml").read_text())
        cri = containerd["plugins"]["io.containerd.grpc.v1.cri"]
        hosts = Path(cri["registry"]["config_path"]) / "registry.embedded:5000" / "hosts.toml"
        found = tomllib.loads(hosts.read_text())
        assert found["server"] == "https://10.199.4.10:5000"
        assert found["host"]["https://10.199.4.10:5000"]["ca"] == str(instance.pki / "ca.crt")
        assert cri["sandbox_image"] == images.PAUSE

    def test_a_folder_with_quotes_and_spaces_stays_one_value(self, tmp_path: Path) -> None:
        odd = Instance(folder=tmp_path / 'a "b" c', subnet=NETWORK)
        found = tomllib.loads(settings.containerd(odd, tmp_path, "native"))
        assert found["root"] == str(odd.data / "containerd")

    def test_kubelet_stays_in_the_instances_own_cgroup(self, instance: Instance, tmp_path: Path) -> None:
        settings.write(instance, tmp_path, "overlayfs")
        assert yaml.safe_load((instance.settings / "kubelet.yaml").read_text())["cgroupRoot"] == f"/{instance.name}"

    def test_every_component_waits_only_for_others_before_it(self, instance: Instance) -> None:
        started: set[str] = set()
        for component in components(instance):
            assert set(component.after) <= started
            started.add(component.name)
        assert started == set(NAMES)


class TestHealth:
    def test_an_answer_makes_it_ready_and_silence_hung_after_25_seconds(self) -> None:
        judge = Judge(started=0)
        assert judge.hear(Answer.NONE, 200) is Verdict.STARTING
        assert judge.hear(Answer.WELL, 201) is Verdict.READY
        assert judge.hear(Answer.NONE, 226) is Verdict.UNREADY
        assert judge.hear(Answer.NONE, 226.1) is Verdict.HUNG

    def test_unwell_is_no_silence_but_not_for_longer_than_90_seconds(self) -> None:
        judge = Judge(started=0)
        judge.hear(Answer.WELL, 10)
        assert [judge.hear(Answer.UNWELL, now) for now in range(20, 101, 10)] == [Verdict.UNREADY] * 9
        assert judge.hear(Answer.UNWELL, 100.1) is Verdict.HUNG

    def test_what_never_gets_well_is_hung_after_four_minutes(self) -> None:
        judge = Judge(started=0)
        assert judge.hear(Answer.UNWELL, 240) is Verdict.STARTING
        assert judge.hear(Answer.UNWELL, 240.1) is Verdict.HUNG

    def test_restarts_slow_down_to_one_in_ten_seconds(self) -> None:
        assert [supervisor.backoff(failures) for failures in (0, 1, 2, 3, 6, 7, 50)] == [0, 0.2, 0.4, 0.8, 6.4, 10, 10]


class TestImages:
    def test_an_archive_is_the_same_every_time_and_its_digests_are_true(self, tmp_path: Path) -> None:
        program = tmp_path / "program"
        program.write_bytes(b"\x7fELF")
        parts = [images.pause(program), images.dns(program)]
        images.write_archive(tmp_path / "one.tar", parts)
        images.write_archive(tmp_path / "two.tar", parts)
        assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
        with tarfile.open(tmp_path / "one.tar") as archive:
            manifest = json.loads(read(archive, "manifest.json"))
            assert [one["RepoTags"] for one in manifest] == [[images.PAUSE], [images.DNS]]
            for one in manifest:
                assert one["Config"] == f"{sha256(read(archive, one['Config']))}.json"
                config = json.loads(read(archive, one["Config"]))
                layers = [f"sha256:{sha256(read(archive, name))}" for name in one["Layers"]]
                assert config["rootfs"]["diff_ids"] == layers

    def test_a_layer_has_parents_before_children(self, tmp_path: Path) -> None:
        program = tmp_path / "busybox"
        program.write_bytes(b"x")
        (tmp_path / "layer.tar").write_bytes(images.layer(images.pause(program)))
        with tarfile.open(tmp_path / "layer.tar") as layer:
            members = [(one.name, one.isdir(), one.mode) for one in layer]
        assert members[0] == ("bin", True, 0o755)
        assert ("bin/busybox", False, 0o755) in members

    def test_the_pause_script_ends_at_once_when_told_to(self) -> None:
        script = images.pause(Path("/bin/true")).files["/pause"][0].decode().replace("while", "echo up\nwhile", 1)
        process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
            process.terminate()
            assert process.wait(timeout=5) == 0
        finally:
            # in a pod what it started ends with the pod's process namespace
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def test_an_unknown_architecture_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "vax")
        with pytest.raises(ToolError, match="does not know the architecture vax"):
            images.architecture()


class TestCgroups:
    def test_in_v1_every_controller_gets_the_group_and_its_processors(self, tmp_path: Path) -> None:
        for controller, files in {"memory": {}, "cpuset": {"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"}}.items():
            (tmp_path / controller / "efp-1" / "node").mkdir(parents=True)
            for folder in (
                tmp_path / controller,
                tmp_path / controller / "efp-1",
                tmp_path / controller / "efp-1/node",
            ):
                (folder / "cgroup.procs").write_text("")
                for name, text in files.items():
                    (folder / name).write_text(text if folder.parent == tmp_path else "")
        assert not cgroups.unified(tmp_path)
        cgroups.create("efp-1", tmp_path)
        assert (tmp_path / "cpuset/efp-1/node/cpuset.cpus").read_text() == "0-1\n"
        assert [str(path.relative_to(tmp_path)) for path in cgroups.hierarchies(tmp_path)] == ["cpuset", "memory"]

    def test_in_v2_controllers_are_handed_down_to_the_one_tree(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "efp-1"):
            folder.mkdir(exist_ok=True)
            (folder / "cgroup.controllers").write_text("cpu memory pids rdma\n")
            (folder / "cgroup.subtree_control").write_text("")
            (folder / "cgroup.procs").write_text("")
        written: list[tuple[str, str]] = []

        class Recorded(type(tmp_path)):  # type: ignore[misc]
            def write_text(self, data: str, *arguments: Any, **options: Any) -> int:
                written.append((str(self.relative_to(tmp_path)), data))
                return len(data)

        cgroups.create("efp-1", Recorded(tmp_path))
        controllers = ("+cpu", "+memory", "+pids")
        assert written == [
            (f"{folder}cgroup.subtree_control", controller) for folder in ("", "efp-1/") for controller in controllers
        ]

    def test_only_the_instances_own_folders_are_removed(self, tmp_path: Path) -> None:
        for name in ("cgroup.controllers", "cgroup.procs"):
            (tmp_path / name).write_text("")
        (tmp_path / "efp-1" / "kubepods" / "burstable").mkdir(parents=True)
        (tmp_path / "efp-12").mkdir()
        assert cgroups.remove("efp-1", root=tmp_path) == []
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["efp-12"]


class TestProcesses:
    def test_a_number_that_was_given_to_another_process_is_not_taken_for_the_supervisor(self, tmp_path: Path) -> None:
        mine = node.process(os.getpid())
        assert mine is not None and mine.alive()
        assert not node.Process(pid=mine.pid, started=mine.started + 1, boot=mine.boot).alive()
        assert not node.Process(pid=mine.pid, started=mine.started, boot="another boot").alive()
        node.remember(mine, tmp_path / "file")
        assert node.remembered(tmp_path / "file") == mine

    def test_a_process_that_only_waits_to_be_collected_is_not_alive(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        found = node.process(child.pid)
        assert found is not None and found.alive()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not found.alive()
        child.communicate()

    @pytest.mark.parametrize("text", ["", "{", '{"pid": 1}'])
    def test_half_a_file_remembers_nobody(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        assert node.remembered(tmp_path / "file") is None

    def test_waiting_gives_those_who_stay(self) -> None:
        stays, ends = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
        ends.terminate()
        try:
            assert ending.wait_gone([stays.pid, ends.pid, 2**22 + 1], 0.5) == [stays.pid]
        finally:
            stays.kill()
            stays.wait()
            ends.wait()

    def test_only_running_tasks_are_told_to_end(self) -> None:
        listing = "TASK    PID    STATUS\nabc     12     RUNNING\ndef     0      STOPPED\n"
        assert ending.task_pids(listing) == {"abc": 12}

    @pytest.mark.parametrize(
        ("kind", "wanted", "told"),
        [
            ("container", "SIGINT", signal.SIGINT),
            ("container", "3", signal.SIGQUIT),
            ("container", "", signal.SIGTERM),
            ("sandbox", "SIGINT", None),
        ],
    )
    def test_a_container_is_told_to_end_as_its_image_asks(
        self, kind: str, wanted: str, told: signal.Signals | None
    ) -> None:
        metadata = base64.b64encode(json.dumps({"Metadata": {"StopSignal": wanted}}).encode()).decode()
        extensions = {"io.cri-containerd.container.metadata": {"value": metadata}}
        description = {"Labels": {"io.cri-containerd.kind": kind}, "Extensions": extensions}
        assert ending.stop_signal(json.dumps(description)) is told

    @pytest.mark.parametrize("description", ["", "null", "[]", '{"Labels": {}}'])
    def test_a_container_that_cannot_be_understood_is_told_in_the_usual_way(self, description: str) -> None:
        assert ending.stop_signal(description) is signal.SIGTERM

    def test_a_node_is_described_to_its_supervisor_without_loss(self, instance: Instance, tmp_path: Path) -> None:
        described = node.Node(instance=instance, system=tmp_path / "sys", visible=(tmp_path / "bin",))
        node.write(described, tmp_path / "node.json")
        assert node.read(tmp_path / "node.json") == described


class FakeClient:
    """Stands for the API: a list of volumes that can be created and deleted."""

    def __init__(self, existing: list[PersistentVolume]) -> None:
        self.existing = existing

    def list(self, kind: type[PersistentVolume], *, labels: dict[str, str]) -> Any:
        class Listing(list):  # type: ignore[type-arg]
            resourceVersion = "7"

        return Listing(self.existing)

    def create(self, volume: PersistentVolume) -> None:
        self.existing.append(volume)

    def delete(self, kind: type[PersistentVolume], name: str) -> None:
        self.existing = [one for one in self.existing if volumes.name_of(one) != name]


def volume(name: str, phase: str) -> PersistentVolume:
    one = volumes.volume_object(name)
    one.status = PersistentVolumeStatus(phase=phase)
    return one


class TestVolumes:
    def test_a_released_volume_is_emptied_and_replaced_and_a_bound_one_left_alone(self, tmp_path: Path) -> None:
        for name in ("bound", "released"):
            (tmp_path / name / "base").mkdir(parents=True)
            (tmp_path / name / "base" / "row").write_text("kept")
        client = FakeClient([volume("bound", "Bound"), volume("released", "Released")])
        assert volumes.Pool(cast(Client, client), tmp_path).tend() == "7"
        names = {volumes.name_of(one) for one in client.existing}
        assert "bound" in names and "released" not in names
        assert len(names) == 1 + volumes.AVAILABLE
        assert {path.name for path in tmp_path.iterdir()} == names
        assert (tmp_path / "bound/base/row").read_text() == "kept"

    def test_a_folder_that_is_gone_already_does_not_stop_the_clean_up(self, tmp_path: Path) -> None:
        client = FakeClient([volume("released", "Released")])
        volumes.Pool(cast(Client, client), tmp_path).tend()
        assert "released" not in {volumes.name_of(one) for one in client.existing}

    @pytest.mark.parametrize(("free", "missing"), [(0, 16), (15, 1), (16, 0), (20, 0)])
    def test_sixteen_are_kept_free(self, free: int, missing: int) -> None:
        pool = [volume(f"f{n}", "Available") for n in range(free)] + [volume("b", "Bound")]
        assert volumes.shortage(pool) == missing


class TestMachine:
    def test_elsewhere_than_on_linux_it_says_what_to_use_instead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(ToolError, match=r"runs on Linux only, this is darwin.*kubernetes:context kind-kind"):
            privilege.demand_linux()

    def test_without_root_and_sudo_it_says_what_to_use_instead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        with pytest.raises(ToolError, match=r"needs root, and there is no sudo.*kubernetes:context kind-kind"):
            privilege.as_root(["up"])

    def test_sudo_that_asks_nothing_runs_the_same_command_on_the_same_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = tmp_path / "sudo"
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        privilege.as_root(["down"])
        first, second = (tmp_path / "asked").read_text().splitlines()
        assert first == "-n true"
        assert second.startswith("-n env RELEASE_LOCAL=") and second.endswith("-m tools.cluster down")

    def test_sudo_that_wants_a_password_is_not_asked_to_run_anything(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = tmp_path / "sudo"
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(ToolError, match=r"sudo wants a password.*`sudo -v`"):
            privilege.as_root(["up"])

    def test_a_binary_that_is_not_there_is_named(self, instance: Instance, tmp_path: Path) -> None:
        with pytest.raises(ToolError, match=f"{tmp_path}/bin/etcd"):
            programs.link(instance, tmp_path / "bin", tmp_path / "sys")

    def test_components_get_nothing_of_the_callers_environment(
        self, instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com")
        found = programs.environment(instance, tmp_path)
        assert "HTTPS_PROXY" not in found
        assert found["PATH"].split(":")[0] == str(instance.programs)


APT = """#!/bin/sh
echo "$@" >> "$RECORD"
case "$*" in
*download*) [ -e "$RECORD.broken" ] && echo "E: 404 Not Found" && exit 100
  while [ "$1" != download ]; do shift; done; shift
  for name; do : > "${name}_1.2-3_amd64.deb"; done ;;
esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/usr/bin" && echo program > "$3/usr/bin/$(basename "$2" | cut -d_ -f1)"
"""


class TestDebian:
    @pytest.fixture
    def record(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        for name, text in (("apt-get", APT), ("dpkg-deb", DPKG)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("RECORD", str(tmp_path / "record"))
        monkeypatch.setattr(debian, "DEBIAN", tmp_path / "debian")
        monkeypatch.setattr(debian, "SYSTEM", tmp_path / "debian/sys")
        yield tmp_path / "record"

    def test_packages_are_unpacked_once_and_only_new_ones_are_fetched(self, record: Path) -> None:
        system = debian.ensure(["a", "b"])
        assert sorted(path.name for path in (system / "usr/bin").iterdir()) == ["a", "b"]
        debian.ensure(["b", "a", "a"])
        debian.ensure(["b", "c"])
        asked = [line.partition("download ")[2] for line in record.read_text().splitlines()]
        assert asked == ["a b", "c"]

    def test_a_mirror_that_lacks_them_is_asked_anew_with_own_lists_and_then_reported(self, record: Path) -> None:
        record.with_suffix(".broken").touch()
        with pytest.raises(ToolError, match=r"apt cannot download a:[\s\S]*404 Not Found[\s\S]*apt-get update"):
            debian.ensure(["a"])
        lines = record.read_text().splitlines()
        assert [next(word for word in line.split() if word in ("download", "update")) for line in lines] == [
            "download",
            "update",
            "download",
        ]
        assert "Dir::State::lists" not in lines[0] and "Dir::State::lists" in lines[1]

    def test_a_machine_without_apt_is_told_what_else_to_use(
        self, record: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(debian, "shutil", SimpleNamespace(which=lambda name: None))
        with pytest.raises(ToolError, match=r"apt-get and dpkg-deb not found.*kubernetes:context"):
            debian.ensure(["a"])


def names(certificate: x509.Certificate) -> set[object]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {one.value for one in found}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
