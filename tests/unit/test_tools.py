"""The small tools around a release: locks, progress, the stack's copy, the virtual environment, the order of checks."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from release.errors import UsageError
from tools import check, cluster, lock, paths, progress, stack, teardown, up, virtualenv
from tools.errors import ToolError

IMAGES = {"steps": "registry/steps@sha256:" + "a" * 64, "postgres": "registry/postgres@sha256:" + "b" * 64}


def _hold_in_a_process(path: Path, command: str) -> subprocess.Popen[str]:
    code = f"""
        import sys
        from pathlib import Path
        from tools import lock
        with lock.hold(Path({str(path)!r}), command={command!r}):
            print("held", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=paths.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_learns_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    process = _hold_in_a_process(path, "make up ENV=staging VERSION=1.1.0")
    with pytest.raises(ToolError) as caught, lock.hold(path):
        pass
    process.communicate(timeout=10)
    expected = (
        rf"{re.escape(str(path))} is held by pid {process.pid} of \S+ on \S+, since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
        r"\([0-9.]+ s ago\): make up ENV=staging VERSION=1\.1\.0\. Wait until that has ended, then try again\."
    )
    assert re.fullmatch(expected, str(caught.value)), caught.value


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    process = _hold_in_a_process(path, "make up")
    process.kill()
    process.communicate()
    with lock.hold(path, command="make down"):
        assert json.loads(path.read_text())["command"] == "make down"
    assert path.read_text() == ""


def test_the_holder_is_told_with_how_long_it_has_been_at_it() -> None:
    holder = lock.Holder(pid=17, user="ada", host="box", since="2026-03-01T10:00:00Z", command="make up")
    text = holder.text(datetime(2026, 3, 1, 10, 4, 5, tzinfo=UTC))
    assert text == "pid 17 of ada on box, since 2026-03-01T10:00:00Z (4 min 05 s ago): make up"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_progress_without_a_terminal_is_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_SECONDS", 0.01)
    printed = ""
    with pytest.raises(KeyError), progress.phase("outer", estimate=90):
        with progress.phase("inner") as inner:
            inner.detail("half of it")
            inner.note("made")
            ends = time.monotonic() + 10
            while "half of it" not in printed and time.monotonic() < ends:
                printed += capsys.readouterr().err
        raise KeyError
    captured = capsys.readouterr()
    lines = re.sub(r"\d\.\d s", "N s", printed + captured.err).splitlines()
    assert captured.out == ""
    assert lines[:2] == ["outer … (about 1 min 30 s)", "  inner …"]
    assert "  inner … N s: half of it" in lines
    # Between the two ends the outer one's heartbeat may come once more.
    assert [line for line in lines if "✓" in line or "✗" in line] == ["  ✓ inner (N s): made", "✗ outer (N s)"]


def test_progress_on_a_terminal_leaves_one_line_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress.phase("outer"), progress.phase("[bold]inner"):
        time.sleep(0.1)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    shown = re.sub(r"\d\.\d s", "N s", shown)
    assert "outer … N s" in shown
    assert [line for line in shown.splitlines() if "✓" in line] == ["  ✓ [bold]inner (N s)", "✓ outer (N s)"]


def test_the_copy_follows_the_tracked_file_until_the_user_sets_something() -> None:
    written = {"release:apiReplicas": 2, "release:bakeSeconds": 60, "release:gone": "x"}
    copy = {"release:apiReplicas": 2, "release:bakeSeconds": "120", "release:gone": "x", "release:own": True}
    defaults = {"release:apiReplicas": 3, "release:bakeSeconds": 60, "release:new": "y"}
    assert stack.merge(copy, defaults, written) == {
        "release:apiReplicas": 3,
        "release:bakeSeconds": "120",
        "release:new": "y",
        "release:own": True,
    }


@pytest.mark.parametrize(("before", "after"), [(60, "60"), (True, "true"), (0.5, "0.5"), ({"a": 1}, {"a": 1})])
def test_a_value_that_pulumi_wrote_as_text_is_not_taken_for_the_users(before: object, after: object) -> None:
    assert stack.merge({"k": after}, {"k": "new"}, {"k": before}) == {"k": "new"}


def test_secrets_of_the_tracked_file_stay_out_of_the_copy() -> None:
    config = {"a": {"secure": "v1:x"}, "b": [{"c": {"secure": "v1:y"}}], "d": {"e": [1]}, "f": "secure"}
    assert stack.plain(config) == {"d": {"e": [1]}, "f": "secure"}


# Stands in for pulumi: keeps stacks in a file, encrypts by reversing, and notes its arguments.
FAKE_PULUMI = """\
#!{python}
import pathlib, sys, yaml
arguments = [a for a in sys.argv[1:] if a not in ("--non-interactive", "--color", "never")]
log = pathlib.Path({log!r})
log.write_text(log.read_text() + " ".join(sys.argv[1:]) + "\\n" if log.exists() else " ".join(sys.argv[1:]) + "\\n")
stacks = pathlib.Path({log!r} + ".stacks")
config = next(iter(pathlib.Path().glob("Pulumi.*.yaml")))
if arguments[:2] == ["stack", "ls"]:
    print(stacks.read_text() if stacks.exists() else "[]")
elif arguments[:2] == ["stack", "init"]:
    stacks.write_text('[{{"name": "organization/release/%s"}}]' % arguments[2])
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({{**document, "encryptionsalt": "v1:salt"}}))
elif arguments[:3] == ["config", "set", "--secret"]:
    document = yaml.safe_load(config.read_text())
    document["config"][arguments[3]] = {{"secure": sys.stdin.read()[::-1]}}
    config.write_text(yaml.safe_dump(document))
else:
    sys.exit("unexpected: " + " ".join(arguments))
"""


@pytest.fixture
def project(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "Pulumi.yaml").write_text("name: release\nruntime: python\n")
    (root / "Pulumi.staging.yaml").write_text(
        "config:\n  release:apiReplicas: 2\n  release:appPassword:\n    secure: v1:a\n"
    )
    monkeypatch.setattr(paths, "ROOT", root)
    pulumi = paths.TOOLCHAIN_BIN / "pulumi"
    pulumi.parent.mkdir(parents=True)
    pulumi.write_text(FAKE_PULUMI.format(python=sys.executable, log=str(tmp_path / "asked")))
    pulumi.chmod(0o755)
    return root


def _document(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict)
    return found


def test_the_first_copy_has_what_the_embedded_cluster_needs(project: Path, local: Path, tmp_path: Path) -> None:
    tracked = (project / "Pulumi.staging.yaml").read_text()
    copy = stack.embedded_config("staging", "1.0.0", IMAGES)
    assert copy == local / "stacks/Pulumi.staging.yaml"
    config = _document(copy)["config"]
    passwords = [config.pop(key) for key in stack.PASSWORDS]
    assert config == {
        "release:apiReplicas": 2,
        "release:folder": "../local/releases/1.0.0",
        "release:stepsImage": IMAGES["steps"],
        "release:databaseImage": IMAGES["postgres"],
        "release:serviceType": "NodePort",
        "release:storageClass": "embedded",
        "release:bakeSeconds": 60,
    }
    assert _document(copy)["encryptionsalt"] == "v1:salt"
    values = [str(password["secure"])[::-1] for password in passwords if isinstance(password, dict)]
    assert len(set(values)) == 2
    assert min(map(len, values)) >= 32
    asked = (tmp_path / "asked").read_text()
    assert not any(value in asked for value in values)
    assert (project / "Pulumi.staging.yaml").read_text() == tracked
    assert sorted(path.name for path in copy.parent.iterdir()) == [
        ".Pulumi.staging.yaml.written",
        "Pulumi.staging.yaml",
    ]


def test_a_later_copy_keeps_passwords_and_what_the_user_set(project: Path) -> None:
    copy = stack.embedded_config("staging", "1.0.0", IMAGES)
    before = _document(copy)
    before["config"] |= {"release:bakeSeconds": "120", "release:apiReplicas": "5", "release:maxErrorRate": "0.2"}
    copy.write_text(yaml.safe_dump(before))
    stack.embedded_config("staging", "1.1.0", {**IMAGES, "steps": "registry/steps@sha256:" + "c" * 64})
    after = _document(copy)
    changed = {"release:folder": "../local/releases/1.1.0", "release:stepsImage": "registry/steps@sha256:" + "c" * 64}
    assert after == {**before, "config": {**before["config"], **changed}}


def test_an_environment_without_a_tracked_file_gets_a_copy_too(project: Path) -> None:
    config = _document(stack.embedded_config("e2e-a1", "1.0.0", IMAGES))["config"]
    assert config["release:serviceType"] == "NodePort"
    assert "release:apiReplicas" not in config


def test_a_refusal_of_pulumi_leaves_the_copy_as_it_was(project: Path) -> None:
    copy = stack.embedded_config("staging", "1.0.0", IMAGES)
    before = copy.read_text()
    (paths.TOOLCHAIN_BIN / "pulumi").write_text("#!/bin/sh\necho 'error: incorrect passphrase' >&2\nexit 1\n")
    with pytest.raises(ToolError, match=r"`pulumi stack ls --json` failed:\nerror: incorrect passphrase"):
        stack.embedded_config("staging", "1.1.0", IMAGES)
    assert copy.read_text() == before


def test_a_copy_that_is_no_configuration_is_named(project: Path) -> None:
    paths.STACKS.mkdir()
    paths.stack_copy("staging").write_text("config: [1]\n")
    with pytest.raises(ToolError, match=r"Pulumi\.staging\.yaml is no stack configuration"):
        stack.embedded_config("staging", "1.0.0", IMAGES)


def test_images_of_a_configuration_are_compared_with_those_of_the_clone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    (project / "Pulumi.staging.yaml").write_text(f"config:\n  release:stepsImage: {IMAGES['steps']}\n")
    assert stack.image_commands("staging", IMAGES) == [
        f"pulumi config set release:databaseImage {IMAGES['postgres']} -s staging"
    ]


@pytest.fixture
def bare_venv(tmp_path: Path) -> Path:
    venv = tmp_path / "place with spaces" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    return venv


def test_the_command_release_runs_the_project_from_anywhere(bare_venv: Path, tmp_path: Path) -> None:
    package = tmp_path / "clone/release/cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("import sys\ndef main():\n    print(sys.argv)\n    return 3\n")
    # A folder of the same name where the user happens to be must not win.
    (tmp_path / "elsewhere/release").mkdir(parents=True)
    (tmp_path / "elsewhere/release/__init__.py").write_text("raise SystemExit('the wrong one')\n")
    virtualenv._import_project(bare_venv, tmp_path / "clone")
    done = subprocess.run(
        [bare_venv / "bin/release", "up", "a b", "$HOME"],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("['release', 'up', 'a b', '$HOME']\n", 3)


def test_an_installed_environment_costs_nothing_until_a_requirements_file_changes(
    bare_venv: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr(virtualenv, "_pip", lambda _venv, arguments: installed.append(list(arguments)))
    monkeypatch.setattr(virtualenv, "_works", lambda _venv: True)
    (tmp_path / "a.txt").write_text("one==1\n")
    (tmp_path / "b.txt").write_text("two==2\n")

    def ensure(*names: str) -> int:
        virtualenv.ensure(names, root=tmp_path, venv=bare_venv)
        return len(installed)

    assert [ensure("a.txt"), ensure("a.txt"), ensure("a.txt", "b.txt"), ensure("a.txt")] == [1, 1, 2, 2]
    assert installed[1][-5:] == ["--require-hashes", "-r", str(tmp_path / "a.txt"), "-r", str(tmp_path / "b.txt")]
    (tmp_path / "b.txt").write_text("two==3\n")
    assert [ensure("a.txt"), ensure("a.txt", "b.txt")] == [2, 3]


def test_a_failed_installation_is_not_taken_for_done(
    bare_venv: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("one==1\n")
    monkeypatch.setattr(virtualenv, "_works", lambda _venv: True)
    with pytest.raises(ToolError, match=r"(?s)pip could not install the packages into .*No module named pip"):
        virtualenv.ensure(["a.txt"], root=tmp_path, venv=bare_venv)
    assert not (bare_venv / "requirements.stamp").exists()


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
80 22 254:0 /x /home/me/clone/.local/cluster/data rw - ext4 /dev/vda rw
81 22 0:30 / /home/me/clone/.local/with\\040space rw - tmpfs tmpfs rw
82 22 0:31 / /home/me/clone/.local2 rw - tmpfs tmpfs rw
"""


def test_what_is_mounted_below_the_local_folder_is_found() -> None:
    assert teardown.mounts_below(Path("/home/me/clone/.local"), MOUNTINFO) == [
        "/home/me/clone/.local/cluster/data",
        "/home/me/clone/.local/with space",
    ]


def test_clean_removes_nothing_while_something_is_mounted_there(
    local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"80 22 254:0 / {local}/images/root rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(teardown, "MOUNTS", mountinfo)
    monkeypatch.setattr(cluster, "clean", lambda: None)
    refused = f"something is still mounted below {local}, so it is not removed: {local}/images/root."
    with pytest.raises(ToolError, match=re.escape(refused)):
        teardown.clean(yes=True)
    assert local.exists()
    mountinfo.write_text("")
    teardown.clean(yes=True)
    assert not local.exists()


def test_clean_refuses_a_folder_that_holds_more_than_its_own(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "clean", lambda: None)
    monkeypatch.setattr(paths, "ROOT", local / "clone")
    with pytest.raises(ToolError, match=re.escape(f"RELEASE_LOCAL is {local}, which holds {local}/clone too")):
        teardown.clean(yes=True)
    assert local.exists()


def test_a_failed_tier_stops_the_costly_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def tier(name: str, passes: bool) -> None:
        def run() -> bool:
            ran.append(name)
            return passes

        monkeypatch.setattr(check, name, run)

    tier("_static", False)
    tier("_unit", True)
    tier("_database", True)
    tier("_set_up", True)
    tier("_end_to_end", True)
    outcomes = check.run_tiers(set(check.Tier))
    assert ran == ["_static", "_unit"]
    assert [(str(outcome.tier), outcome.passed) for outcome in outcomes] == [
        ("static", False),
        ("unit", True),
        ("database", False),
        ("set-up", False),
        ("e2e", False),
    ]


def test_the_minutes_of_every_tier_are_told() -> None:
    outcomes = [
        check.Outcome(tier=check.Tier.STATIC, passed=True, minutes=0.5),
        check.Outcome(tier=check.Tier.UNIT, passed=False, minutes=1.25),
        check.Outcome(tier=check.Tier.E2E, passed=False, minutes=None),
    ]
    assert check.table(outcomes).splitlines() == [
        "static     0.5 min  passed",
        "unit       1.2 min  FAILED, over its budget of 1 min",
        "e2e          -      not run, because an earlier tier failed",
        "all        1.8 min",
    ]


@pytest.mark.parametrize(
    ("target", "version", "message"),
    [
        ("Staging", "1.0.0", "'Staging' is no environment"),
        ("../prod", "1.0.0", "'../prod' is no environment"),
        ("a" * 41, "1.0.0", "is no environment"),
        ("staging", "1.0", "VERSION: '1.0' is no semantic version"),
        ("staging", "1.0.0; rm -r /", "VERSION: .* is no semantic version"),
    ],
)
def test_make_up_refuses_what_it_cannot_mean(local: Path, target: str, version: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        up.up(target, version)
    assert list(local.iterdir()) == []
