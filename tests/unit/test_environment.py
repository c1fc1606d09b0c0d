"""The environment for plain pulumi: what the user chose wins, and what is given is what a shell can evaluate."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools import paths
from tools.environment import environment, export_lines, passphrase_file, uses_own_cluster

BASE = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder without any stack configuration."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def test_without_any_choice_everything_is_the_projects_own(local: Path, root: Path) -> None:
    found = environment(None, base=BASE)
    assert found == {
        "PATH": f"{local}/toolchain/bin:{paths.VENV}/bin:/usr/bin:/bin",
        "PULUMI_HOME": f"{local}/pulumi",
        "PULUMI_BACKEND_URL": f"file://{local}/state",
        "PULUMI_CONFIG_PASSPHRASE_FILE": f"{local}/passphrase",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "KUBECONFIG": f"{local}/cluster/kubeconfig",
    }
    assert (local / "state").is_dir()


@pytest.mark.parametrize(
    ("chosen", "left_alone"),
    [
        ({"PULUMI_BACKEND_URL": "s3://team-state"}, "PULUMI_BACKEND_URL"),
        ({"PULUMI_CONFIG_PASSPHRASE": ""}, "PULUMI_CONFIG_PASSPHRASE_FILE"),
        ({"PULUMI_CONFIG_PASSPHRASE": "own"}, "PULUMI_CONFIG_PASSPHRASE_FILE"),
        ({"PULUMI_CONFIG_PASSPHRASE_FILE": "/own"}, "PULUMI_CONFIG_PASSPHRASE_FILE"),
        ({"KUBECONFIG": "/home/me/.kube/config"}, "KUBECONFIG"),
    ],
)
def test_what_the_user_chose_wins(local: Path, root: Path, chosen: dict[str, str], left_alone: str) -> None:
    without = environment(None, base=BASE)
    found = environment(None, base={**BASE, **chosen})
    assert left_alone not in found
    assert set(found) == set(without) - {left_alone}


def test_a_chosen_passphrase_makes_no_file(local: Path, root: Path) -> None:
    environment(None, base={**BASE, "PULUMI_CONFIG_PASSPHRASE": "own"})
    assert not (local / "passphrase").exists()


def test_a_shell_inside_the_shell_changes_nothing(local: Path, root: Path) -> None:
    outer = {**BASE, **environment(None, base=BASE)}
    inner = {**outer, **environment(None, base=outer)}
    assert inner == outer


def test_the_stacks_copy_is_used_only_where_it_exists(local: Path, root: Path) -> None:
    assert "PULUMI_OPTION_CONFIG_FILE" not in environment("staging", base=BASE)
    copy = paths.stack_copy("staging")
    copy.parent.mkdir()
    copy.write_text("config: {}\n")
    assert environment("staging", base=BASE)["PULUMI_OPTION_CONFIG_FILE"] == str(copy)
    assert "PULUMI_OPTION_CONFIG_FILE" not in environment("prod", base=BASE)
    assert "PULUMI_OPTION_CONFIG_FILE" not in environment(None, base=BASE)


def test_the_configuration_that_the_user_chose_wins(local: Path, root: Path) -> None:
    copy = paths.stack_copy("staging")
    copy.parent.mkdir()
    copy.write_text("config: {}\n")
    assert "PULUMI_OPTION_CONFIG_FILE" not in environment(
        "staging", base={**BASE, "PULUMI_OPTION_CONFIG_FILE": "/own/Pulumi.yaml"}
    )


def test_the_shell_of_one_stack_does_not_lend_its_configuration_to_another(local: Path, root: Path) -> None:
    copy = paths.stack_copy("staging")
    copy.parent.mkdir()
    copy.write_text("config: {}\n")
    shell = {**BASE, **environment("staging", base=BASE)}
    assert environment("prod", base=shell)["PULUMI_OPTION_CONFIG_FILE"] == str(root / "Pulumi.prod.yaml")
    assert environment("staging", base=shell)["PULUMI_OPTION_CONFIG_FILE"] == str(copy)


def test_a_context_in_the_tracked_configuration_chooses_the_cluster(local: Path, root: Path) -> None:
    copy = paths.stack_copy("staging")
    copy.parent.mkdir()
    copy.write_text("config: {}\n")
    (root / "Pulumi.staging.yaml").write_text("config:\n  kubernetes:context: kind-staging\n")
    found = environment("staging", base=BASE)
    # The copy is for the embedded cluster: with it, a release would go to the wrong one.
    assert {"KUBECONFIG", "PULUMI_OPTION_CONFIG_FILE"} & set(found) == set()
    assert uses_own_cluster("staging", base=BASE)
    assert not uses_own_cluster("prod", base=BASE)


@pytest.mark.parametrize("text", ["", "config:\n", "config:\n  kubernetes:context: ''\n", "config:\n  release:a: 1\n"])
def test_a_configuration_without_a_context_leaves_the_embedded_cluster(local: Path, root: Path, text: str) -> None:
    (root / "Pulumi.staging.yaml").write_text(text)
    assert environment("staging", base=BASE)["KUBECONFIG"] == str(paths.KUBECONFIG)


def test_the_passphrase_is_private_random_and_made_once(local: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: passphrase_file().read_text(), range(32)))
    assert len(texts) == 1
    assert len(texts.pop()) >= 40
    assert stat.S_IMODE(paths.PASSPHRASE.stat().st_mode) == 0o600
    assert [path.name for path in local.iterdir()] == ["passphrase"]


def test_the_export_lines_survive_a_shell() -> None:
    awkward = "a b'c\"d$(touch /tmp/no)`e`\\"
    done = subprocess.run(
        ["sh", "-c", f"{export_lines({'AWKWARD': awkward})}printenv AWKWARD"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == awkward + "\n"


def test_the_node_is_reached_around_a_proxy(local: Path) -> None:
    paths.CLUSTER.mkdir()
    paths.KUBECONFIG.write_text("clusters: [{cluster: {server: 'https://10.199.4.2:6443'}}]", encoding="utf-8")
    proxied = {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "localhost,.example"}
    given = environment(None, base=proxied)
    assert given["NO_PROXY"] == given["no_proxy"] == "localhost,.example,10.199.4.2"
    assert "NO_PROXY" not in environment(None, base={})
