"""The toolchain: when a binary is built again, that a build is whole or not there, and which commands are taken.

Go, the user's pulumi and kubectl are small scripts here; the real ones are for the end-to-end tests.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from release.errors import UsageError
from tools import paths, toolchain
from tools.errors import ToolError
from tools.toolchain import build, golang, machine, plugin
from tools.toolchain.specs import (
    BINARIES,
    KUBERNETES,
    KUBERNETES_PROVIDER,
    LANGUAGE_PYTHON,
    PULUMI,
    Copy,
    GoBinary,
    Package,
)

# Stands in for Go: answers `go env` and `go mod download`, and for `go build` runs what the test wants.
FAKE_GO = """\
#!/bin/sh
case "$1 $2" in
  "env -json") echo '{"GOVERSION": "go1.26.1", "GOTOOLCHAIN": "auto"}' ;;
  "mod download") echo "{\\"Dir\\": \\"$FAKE_MODULE\\"}" ;;
  build*)
    echo "$PWD" >> "$FAKE_CALLS"
    while [ "$1" != -o ]; do shift; done
    eval "$FAKE_BUILD" ;;
  *) echo "unexpected: go $*" >&2; exit 3 ;;
esac
"""
GOOD_BUILD = 'echo example.com/a >&2; cat tool.txt go.sum > "$2"; chmod 755 "$2"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """A Go module in a temporary folder, a Go command that stands in, and what that was asked."""

    binary: GoBinary
    calls: Path

    def times_built(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def bench(tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module example\n")
    (module / "go.sum").write_text("pinned h1:1\n")
    (module / "main.go").write_text("package main\n")
    dependency = tmp_path / "dependency"
    dependency.mkdir()
    (dependency / "tool.txt").write_text("out of the dependency\n")
    (dependency / "helper").write_text("#!/bin/sh\n")
    _command(tmp_path / "bin/go", FAKE_GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_MODULE", str(dependency))
    monkeypatch.setenv("FAKE_BUILD", GOOD_BUILD)
    monkeypatch.setenv("RELEASE_LOCAL", str(local))
    return Bench(binary=_binary(module), calls=tmp_path / "calls")


def _binary(module: Path) -> GoBinary:
    return GoBinary(
        name="tool",
        title="a tool",
        version="1.0.0",
        folder=module,
        packages=(Package(path=".", file="tool"),),
        copies=(
            Copy(module="example.com/dependency", file=PurePosixPath("tool.txt"), into_sources=True),
            Copy(module="example.com/dependency", file=PurePosixPath("helper")),
        ),
        links=("alias",),
        cold=1,
    )


def _command(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def _left_over(local: Path) -> list[str]:
    """What lies in the toolchain's folder, the empty lock files aside."""
    return sorted(path.name for path in (local / "toolchain").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go", "another.go"])
def test_a_changed_source_makes_another_binary(bench: Bench, file: str) -> None:
    before = build.key(bench.binary)
    path = bench.binary.folder / file
    path.write_text((path.read_text() if path.exists() else "") + "// changed\n")
    assert build.key(bench.binary) != before


@pytest.mark.parametrize(
    "change",
    [
        {"cgo": False},
        {"packages": (Package(path=".", file="tool", variables=(("main.version", "2"),)),)},
        {"copies": ()},
        {"links": ()},
    ],
)
def test_a_changed_flag_makes_another_binary(bench: Bench, change: dict[str, object]) -> None:
    assert build.key(dataclasses.replace(bench.binary, **change)) != build.key(bench.binary)  # type: ignore[arg-type]


def test_what_does_not_reach_the_binary_does_not_change_its_key(bench: Bench, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    bench.binary.folder.rename(moved)
    key = build.key(dataclasses.replace(bench.binary, folder=moved))
    (moved / "schema.json").write_text("{}")
    other = dataclasses.replace(bench.binary, folder=moved, title="another title", cold=900)
    assert build.key(other) == key
    assert len(key) == 12


def test_a_missing_go_sum_is_named(bench: Bench) -> None:
    (bench.binary.folder / "go.sum").unlink()
    with pytest.raises(ToolError, match=r"go\.sum is missing"):
        build.build(bench.binary)


def test_a_build_gives_the_binary_with_its_companions_and_links(bench: Bench, local: Path) -> None:
    folder = build.build(bench.binary)
    assert folder == local / "toolchain" / f"tool-{build.key(bench.binary)}" / "bin"
    assert (folder / "tool").read_text() == "out of the dependency\npinned h1:1\n"
    assert (folder / "helper").stat().st_mode & 0o777 == 0o755
    assert (folder / "alias").readlink() == Path("tool")
    assert sorted(path.name for path in bench.binary.folder.iterdir()) == ["go.mod", "go.sum", "main.go"]


def test_a_second_call_needs_no_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build.build(bench.binary)
    monkeypatch.setenv("PATH", "")
    assert build.build(bench.binary) == folder
    assert bench.times_built() == 1


def test_the_flags_reach_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BUILD", 'echo "cgo=$CGO_ENABLED work=$GOWORK" > "$2"')
    monkeypatch.delenv("CGO_ENABLED", raising=False)
    assert (build.build(bench.binary) / "tool").read_text() == "cgo= work=off\n"
    without = dataclasses.replace(bench.binary, cgo=False)
    assert (build.build(without) / "tool").read_text() == "cgo=0 work=off\n"
    log = (paths.LOGS / "build-tool.log").read_text()
    assert "build -v -trimpath -buildvcs=false -mod=readonly -ldflags '-s -w' -o" in log


def test_a_failed_build_shows_what_go_said_and_leaves_nothing(
    bench: Bench, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "FAKE_BUILD", 'echo half > "$2"; echo example.com/a >&2; echo "main.go:3:1: no such thing" >&2; exit 1'
    )
    with pytest.raises(ToolError) as caught:
        build.build(bench.binary)
    message = str(caught.value)
    assert message.startswith(
        "building a tool 1.0.0 failed (exit code 1); its last lines:\n  main.go:3:1: no such thing\n"
    )
    assert str(local / "logs/build-tool.log") in message
    assert "example.com/a" not in message
    assert _left_over(local) == []

    monkeypatch.setenv("FAKE_BUILD", GOOD_BUILD)
    assert (build.build(bench.binary) / "tool").is_file()


def _build_in_a_process(bench: Bench) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(f"""
        from tests.unit.test_toolchain import _binary
        from tools import command
        from tools.toolchain import build
        from pathlib import Path
        command.run(lambda: build.build(_binary(Path({str(bench.binary.folder)!r}))))
    """)
    return subprocess.Popen([sys.executable, "-c", code], cwd=paths.ROOT, stderr=subprocess.PIPE)


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "nothing came in 20 s"
        time.sleep(0.01)


@pytest.fixture
def hanging(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A build that writes half a binary and then hangs; its own process number stands in the file."""
    pid = tmp_path / "pid"
    monkeypatch.setenv("FAKE_BUILD", f'echo half > "$2"; echo $$ > "{pid}"; exec sleep 60')
    yield pid
    if pid.exists() and _alive(int(pid.read_text())):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_build_leaves_nothing_and_ends_go(
    bench: Bench, local: Path, hanging: Path, number: signal.Signals
) -> None:
    process = _build_in_a_process(bench)
    _wait_for(lambda: hanging.exists() and hanging.read_text() != "")
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert _left_over(local) == []
    assert not _alive(int(hanging.read_text()))


def test_the_build_after_a_killed_one_starts_anew(
    bench: Bench, local: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = _build_in_a_process(bench)
    _wait_for(lambda: hanging.exists() and hanging.read_text() != "")
    process.kill()
    process.communicate()
    assert [name[:6] for name in _left_over(local)] == [".tool."]
    assert not build.is_built(bench.binary)

    monkeypatch.setenv("FAKE_BUILD", GOOD_BUILD)
    folder = build.build(bench.binary)
    assert (folder / "tool").read_text() != "half\n"
    assert _left_over(local) == [folder.parent.name]


def test_two_builds_at_once_build_once(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    monkeypatch.setenv("FAKE_BUILD", f'read word < "{gate}"; {GOOD_BUILD}')
    first = _build_in_a_process(bench)
    _wait_for(lambda: bench.times_built() == 1)
    second = _build_in_a_process(bench)
    assert second.stderr is not None
    said = second.stderr.readline().decode()
    assert said.startswith(f"waiting for pid {first.pid} of ")
    gate.write_text("go\n")
    first.communicate(timeout=20)
    second.communicate(timeout=20)
    assert (first.returncode, second.returncode, bench.times_built()) == (0, 0, 1)


@pytest.mark.parametrize(
    ("version", "setting", "problem"),
    [
        ("go1.26.0", "local", None),
        ("go1.27rc1", "local", None),
        ("devel go1.28-abcdef", "local", None),
        ("go1.25.7", "auto", None),
        ("go1.21.0", "go1.21.0+auto", None),
        ("go1.22.1", "path", None),
        ("go1.25.7", "local", "is go1.25.7 and may not fetch a newer one (GOTOOLCHAIN is 'local')"),
        ("go1.22.1", "go1.22.1", "is go1.22.1 and may not fetch a newer one (GOTOOLCHAIN is 'go1.22.1')"),
        ("go1.19.8", "auto", "is go1.19.8, too old to build the toolchain and to fetch a newer Go"),
        ("gopher", "auto", "says the version 'gopher', which is none of Go's"),
    ],
)
def test_which_go_will_do(version: str, setting: str, problem: str | None) -> None:
    assert golang.refusal(version, setting) == problem


def test_no_go_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golang, "USUAL_PLACE", tmp_path / "nothing")
    with pytest.raises(ToolError, match=r"no `go` on PATH.*Install Go 1\.26 or newer"):
        golang.find_go({"PATH": str(tmp_path)})


def test_go_beside_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = _command(tmp_path / "usual/go", FAKE_GO)
    monkeypatch.setattr(golang, "USUAL_PLACE", usual)
    assert golang.find_go({"PATH": str(tmp_path)}) == golang.Go(executable=usual, version="go1.26.1")


def test_a_broken_go_is_quoted(tmp_path: Path) -> None:
    _command(tmp_path / "go", "#!/bin/sh\necho no such toolchain >&2\nexit 2\n")
    with pytest.raises(ToolError, match=r"(?s)go does not work: no such toolchain.*Install Go"):
        golang.find_go({"PATH": f"{tmp_path}:/bin:/usr/bin"})


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("v3.255.0", True),
        ("3.255.0", True),
        ("v3.300.1", True),
        ("v3.256.0-alpha.x1", True),
        ("v3.255.0-alpha.x1", False),
        ("v3.254.9", False),
        ("v4.0.0", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_which_pulumi_is_taken(version: str, taken: bool) -> None:
    assert (machine.pulumi_refusal(version) is None) is taken


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("v1.34.4", True),
        ("v1.33.0", True),
        ("v1.35.2", True),
        ("v1.34.1-eks-113cf36", True),
        ("v1.33.4+k3s1", True),
        ("v1.32.4-dispatcher", False),
        ("v1.36.0", False),
        ("v2.34.0", False),
        ("", False),
    ],
)
def test_which_kubectl_is_taken(version: str, taken: bool) -> None:
    assert (machine.kubectl_refusal(version) is None) is taken


def test_kubectl_is_asked_for_its_real_version(tmp_path: Path) -> None:
    # "minor" may be "32+", so it is not what counts.
    answer = '{"clientVersion": {"major": "1", "minor": "34+", "gitVersion": "v1.32.4-dispatcher"}}'
    kubectl = _command(tmp_path / "kubectl", f"#!/bin/sh\necho '{answer}'\n")
    assert machine.find_kubectl({"PATH": str(tmp_path)}) == machine.Found(
        executable=kubectl, version="v1.32.4-dispatcher", refused="is v1.32.4-dispatcher, needed is 1.33 to 1.35"
    )


def test_a_command_that_fails_is_not_taken(tmp_path: Path) -> None:
    _command(tmp_path / "pulumi", "#!/bin/sh\necho v3.255.0\nexit 1\n")
    found = machine.find_pulumi({"PATH": str(tmp_path)})
    assert found is not None
    assert found.refused == "gives no version ('')"


def test_our_own_link_is_not_the_users(local: Path) -> None:
    _command(paths.TOOLCHAIN_BIN / "pulumi", "#!/bin/sh\necho v3.255.0\n")
    assert machine.find_pulumi({"PATH": str(paths.TOOLCHAIN_BIN)}) is None


# Stands in for the user's pulumi: the network is there when FAKE_ONLINE is set; an install makes the plugin's file.
FAKE_PULUMI = """\
#!/bin/sh
echo "$*" >> "$FAKE_PULUMI_CALLS"
case "$*" in
  version) echo "$FAKE_VERSION"; exit 0 ;;
  *--file*) source=file ;;
  *) [ -n "$FAKE_ONLINE" ] || { echo "error: no route to host" >&2; exit 1; }; source=network ;;
esac
mkdir -p "$PULUMI_HOME/plugins/resource-kubernetes-v4.25.0"
echo $source > "$PULUMI_HOME/plugins/resource-kubernetes-v4.25.0/pulumi-resource-kubernetes"
"""


@pytest.fixture
def user_pulumi(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pulumi = _command(tmp_path / "user/pulumi", FAKE_PULUMI)
    _command(tmp_path / "user/pulumi-language-python", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{pulumi.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PULUMI_CALLS", str(tmp_path / "pulumi-calls"))
    monkeypatch.setenv("FAKE_VERSION", "v3.260.0")
    monkeypatch.setenv("FAKE_ONLINE", "")
    # Nothing to copy out of modules that are not there.
    provider = dataclasses.replace(KUBERNETES_PROVIDER, copies=())
    monkeypatch.setattr(plugin, "KUBERNETES_PROVIDER", provider)
    monkeypatch.setenv("FAKE_BUILD", 'echo built > "$2"')
    return pulumi


def _installed() -> str:
    return (plugin.folder() / "pulumi-resource-kubernetes").read_text().strip()


def test_a_good_pulumi_is_taken_and_fetches_its_plugin(
    user_pulumi: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ONLINE", "yes")
    tools = toolchain.ensure(toolchain.FOR_RELEASES)
    assert {name: (tool.source, tool.version) for name, tool in tools.items()} == {
        "pulumi": (toolchain.Source.MACHINE, "v3.260.0"),
        "language-python": (toolchain.Source.MACHINE, "v3.260.0"),
        "kubernetes-provider": (toolchain.Source.PLUGIN, "4.25.0"),
    }
    assert _installed() == "network"
    assert bench.times_built() == 0
    assert not paths.TOOLCHAIN_BIN.exists()


def test_offline_the_plugin_is_built_and_installed_from_the_file(user_pulumi: Path, bench: Bench) -> None:
    toolchain.ensure(["kubernetes-provider"])
    assert _installed() == "file"
    assert bench.times_built() == 1


def test_an_installed_plugin_is_left_alone(user_pulumi: Path, bench: Bench, tmp_path: Path) -> None:
    toolchain.ensure(["kubernetes-provider"])
    asked = (tmp_path / "pulumi-calls").read_text()
    plugin.install(user_pulumi, may_fetch=True)
    assert (tmp_path / "pulumi-calls").read_text() == asked


def test_a_plugin_built_from_other_sources_is_replaced(user_pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain.ensure(["kubernetes-provider"])
    assert plugin.is_installed()
    changed = dataclasses.replace(KUBERNETES_PROVIDER, copies=(), cgo=False)
    monkeypatch.setattr(plugin, "KUBERNETES_PROVIDER", changed)
    assert not plugin.is_installed()
    toolchain.ensure(["kubernetes-provider"])
    assert plugin.is_installed()


def test_a_plugin_half_unpacked_counts_as_missing(user_pulumi: Path) -> None:
    toolchain.ensure(["kubernetes-provider"])
    plugin.folder().with_name("resource-kubernetes-v4.25.0.partial").touch()
    assert not plugin.is_installed()


def test_a_pulumi_too_old_is_named_and_ours_is_built(
    user_pulumi: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_VERSION", "v3.100.0")
    tool = toolchain.ensure(["pulumi"])["pulumi"]
    assert (tool.source, tool.version) == (toolchain.Source.BUILT, "3.255.0")
    assert f"{user_pulumi} is v3.100.0, needed is 3.255.0 or newer, below 4: not taken" in capsys.readouterr().err
    assert (paths.TOOLCHAIN_BIN / "pulumi").samefile(tool.folder / "pulumi")
    assert not (paths.TOOLCHAIN_BIN / "pulumi").is_symlink()


def test_what_was_built_stays_in_use(user_pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VERSION", "v3.100.0")
    toolchain.ensure(["pulumi"])
    monkeypatch.setenv("FAKE_VERSION", "v3.260.0")
    assert toolchain.ensure(["pulumi"])["pulumi"].source is toolchain.Source.BUILT


def test_a_link_goes_when_the_machine_has_the_command(user_pulumi: Path) -> None:
    stale = _command(paths.TOOLCHAIN_BIN / "pulumi", "#!/bin/sh\n")
    toolchain.ensure(["pulumi"])
    assert not stale.exists()


def test_a_pulumi_without_its_language_host_gets_ours(user_pulumi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user_pulumi.parent / "pulumi-language-python").unlink()
    host = dataclasses.replace(LANGUAGE_PYTHON, copies=())
    monkeypatch.setattr(toolchain, "LANGUAGE_PYTHON", host)
    monkeypatch.setitem(toolchain.EXECUTABLES, toolchain.ToolName.LANGUAGE_PYTHON, ("pulumi-language-python",))
    assert toolchain.ensure(["language-python"])["language-python"].source is toolchain.Source.BUILT
    assert (paths.TOOLCHAIN_BIN / "pulumi-language-python").read_text() == "built\n"


def test_an_unknown_tool_is_a_usage_error(local: Path) -> None:
    with pytest.raises(UsageError, match="no such tool: helm; there are pulumi, language-python, "):
        toolchain.ensure(["helm"])


def test_versions_in_the_table_are_those_of_the_modules() -> None:
    def required(folder: Path, module: str) -> str:
        lines = [line.split() for line in (folder / "go.mod").read_text().splitlines()]
        words = next(line for line in lines if module in line)
        return words[words.index(module) + 1]

    assert required(PULUMI.folder, "github.com/pulumi/pulumi/pkg/v3") == f"v{PULUMI.version}"
    assert required(BINARIES["language-python"].folder, "github.com/pulumi/pulumi/sdk/v3") == (
        f"v{BINARIES['language-python'].version}"
    )
    assert required(KUBERNETES.folder, "k8s.io/kubernetes") == f"v{KUBERNETES.version}"
    assert required(BINARIES["coredns"].folder, "github.com/coredns/coredns") == f"v{BINARIES['coredns'].version}"
    assert (
        f'"{BINARIES["kubernetes-provider"].version}"'
        in (BINARIES["kubernetes-provider"].folder / "main.go").read_text()
    )


def test_every_command_for_people_is_made_by_its_binary() -> None:
    for name, executables in toolchain.EXECUTABLES.items():
        binary = KUBERNETES if name is toolchain.ToolName.KUBECTL else BINARIES[name]
        made = {package.file for package in binary.packages} | {copy.file.name for copy in binary.copies}
        assert set(executables) <= made | set(binary.links)
