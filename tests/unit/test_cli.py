"""The command line: codes and messages, through its own runner and as a process.

`up` on the real engine is in the end-to-end tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from release.cli import target
from release.errors import ReleaseError, UsageError
from tests.command_line import REPOSITORY, api, environ, keep_record, project, run
from tests.unit.kubernetes_api import KubernetesApi
from tools import paths

__all__ = ["api", "environ", "project"]

USAGE = [
    (["up", "staging"], "Missing argument 'VERSION'"),
    (["up", "Staging", "1.0.0"], "error: 'Staging' is no environment; write it like staging"),
    (["up", "a" * 41, "1.0.0"], "is no environment"),
    (["up", "test", "1.0.0"], "error: there is no environment 'test': no Pulumi.test.yaml; there are prod, staging"),
    (["up", "staging", "1.0"], "error: VERSION: '1.0' is no semantic version; write it like 1.4.0"),
    (["up", "staging", "../1.0.0"], "error: VERSION: '../1.0.0' is no semantic version"),
    (
        ["up", "staging", "9.9.9"],
        "error: release 9.9.9 is not assembled; assembled: 1.0.0, 1.1.0; known: 1.0.0, 1.1.0, 1.1.1; to assemble one "
        "of these, run `make up VERSION=…`",
    ),
    (["status", "test"], "there is no environment 'test'"),
    (["history", "test"], "there is no environment 'test'"),
    (["deploy"], "No such command 'deploy'"),
    (["status", "staging", "--yaml"], "No such option"),
]


@pytest.mark.parametrize(("words", "expected"), USAGE, ids=[" ".join(case[0])[:30] for case in USAGE])
def test_what_cannot_be_meant_ends_with_2_and_says_what_can(project: Path, words: list[str], expected: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_known_release_that_is_not_assembled_is_blocked_with_the_command_that_assembles_it(project: Path) -> None:
    result = run("up", "staging", "1.1.1")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: release 1.1.1 is not assembled; assembled: 1.0.0, 1.1.0; known: 1.0.0, 1.1.0, 1.1.1; assemble and "
        "release it with `make up VERSION=1.1.1`\n"
    )


def test_a_damaged_release_is_blocked_before_the_engine_starts(project: Path) -> None:
    (paths.RELEASES / "1.0.0" / "flags.json").write_text("[]", encoding="utf-8")
    result = run("up", "staging", "1.0.0")
    assert result.exit_code == 1
    assert "flags.json: flags.sha256: changed after assembling" in result.stderr
    assert not paths.STATE.exists() or list(paths.STATE.iterdir()) == []


def test_a_folder_that_holds_another_release_is_blocked(project: Path) -> None:
    (paths.RELEASES / "1.1.0").rename(paths.RELEASES / "1.1.1")
    with pytest.raises(ReleaseError, match=r"1\.1\.1 holds release 1\.1\.0, not 1\.1\.1"):
        target.find_release("1.1.1")


def test_without_an_engine_it_says_how_to_get_one(project: Path) -> None:
    os.environ["PATH"] = str(project)
    result = run("up", "staging", "1.0.0")
    assert result.exit_code == 1
    assert result.stderr == "error: there is no `pulumi` on PATH; run this in `make shell`, or `make up` first\n"


def test_the_next_version_is_the_smallest_above(project: Path) -> None:
    assert [target.next_version(version) for version in ("1.0.0", "1.1.0", "1.1.1")] == ["1.1.0", "1.1.1", None]


def test_the_git_ignored_copy_is_the_configuration_in_use_where_there_is_one(project: Path) -> None:
    assert target.find("staging").config_file == project / "Pulumi.staging.yaml"
    assert target.find("staging").tracked
    paths.STACKS.mkdir()
    copy = paths.stack_copy("staging")
    copy.write_text("config:\n  kubernetes:context: kind\n", encoding="utf-8")
    found = target.find("staging")
    assert (found.config_file, found.tracked, found.value("kubernetes:context")) == (copy, False, "kind")


def test_an_environment_may_have_nothing_but_a_copy(project: Path) -> None:
    paths.STACKS.mkdir()
    paths.stack_copy("e2e-a1").write_text("config: {}\n", encoding="utf-8")
    assert target.find("e2e-a1").config_file == paths.stack_copy("e2e-a1")
    with pytest.raises(UsageError, match="there are e2e-a1, prod, staging"):
        target.find("e2e-a2")


def test_a_chosen_configuration_that_is_missing_is_refused(project: Path) -> None:
    os.environ["PULUMI_OPTION_CONFIG_FILE"] = "nowhere.yaml"
    with pytest.raises(ReleaseError, match=r"nowhere\.yaml does not exist \(PULUMI_OPTION_CONFIG_FILE\)"):
        target.find("staging")


def test_status_and_history_of_an_environment_that_was_never_deployed_to(api: KubernetesApi) -> None:
    assert json.loads(run("history", "staging", "--json").stdout)["records"] == []
    assert run("history", "staging").stdout == "staging: no deployment yet\n"
    document = json.loads(run("status", "staging", "--json").stdout)
    assert (document["version"], document["pods"]["desired"], document["url"]) == (None, 0, None)
    assert run("status", "staging").stdout.startswith("staging: no release has been healthy here yet\n")


def test_status_says_how_to_go_on_with_what_is_under_way(api: KubernetesApi) -> None:
    keep_record(api, 1)
    text = run("status", "staging").stdout
    assert "under way: deployment 1 (1.0.0), opened 2026-03-01T12:00:00Z by ada@laptop" in text
    assert "it goes on with: release up staging 1.0.0" in text
    assert "1   1.0.0    open    2026-03-01T12:00:00Z" in run("history", "staging").stdout


def test_a_cluster_that_is_not_there_ends_with_1_and_what_mends_it(project: Path) -> None:
    for command in ("status", "history"):
        result = run(command, "staging")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "kubeconfig not found; looked in" in result.stderr
        assert "start the embedded cluster with `make up`" in result.stderr


def test_it_runs_as_a_process_of_its_own(local: Path) -> None:
    environ = {**os.environ, "RELEASE_LOCAL": str(local)}

    def process(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "release.cli", *words]
        return subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)

    version = process("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert f'version = "{version.stdout.strip()}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    unknown = process("up", "nowhere", "1.0.0")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: there is no environment 'nowhere'")
    missing = process("status", "staging")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no access to a Kubernetes cluster")
