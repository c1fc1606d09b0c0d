"""What the tests of the command line share: a clone's root with assembled releases, and an API for the cluster."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from release.cli import app
from release.manifest import Flags, Manifest, ReleaseType, Schema
from steps import records
from steps.records import Link, Opening
from tests.unit.kubernetes_api import KubernetesApi
from tools import paths

PROJECT: Mapping[str, Any] = {"name": "release", "runtime": "python", "description": "a test's program"}
REPOSITORY = Path(__file__).parents[1]

FLAGS = "{}"
IMAGE = "registry.example/forecast@sha256:" + "a" * 64
SECRET = "never-shown-0123456789"


PROGRAM = """
import time

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class Worker(ResourceProvider):
    def create(self, props):
        import time

        end = time.monotonic() + float(props["seconds"])
        while time.monotonic() < end:
            time.sleep(0.05)
        if props["fails"]:
            raise Exception("no such column")
        return CreateResult(id_="done", outs=props)


class Job(Resource):
    def __init__(self, name, seconds, fails):
        labels = {"release.energy/deployment": plan["number"]}
        props = {"metadata": {"labels": labels}, "seconds": seconds, "fails": fails, "secret": secret}
        super().__init__(Worker(), f"{name}-{plan['number']}", props)


config = pulumi.Config("release")
secret = pulumi.Output.secret("never-shown-0123456789")
plan = dict(word.split("=") for word in config.require("plan").split(","))
Job("backup", "0", "")
Job("migrate", plan.get("seconds", "0"), plan.get("fails", ""))
pulumi.log.info("release from " + config.require("folder"))
if "stop" in plan:
    raise SystemExit("the configuration is wrong")
pulumi.export("head", {"deployment": plan["number"], "sha256": "a" * 64})
pulumi.export("secret", secret)
"""


@pytest.fixture
def environ() -> Iterator[None]:
    """The command line sets variables of its own process, which is the tests' here."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("PULUMI_", "KUBECONFIG"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(local: Path, tmp_path: Path, environ: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's root with the tracked files that the command line reads, and releases 1.0.0 and 1.1.0 assembled."""
    root = tmp_path / "root"
    for version in ("1.0.0", "1.1.0", "1.1.1"):
        (root / "forecast" / "releases" / version).mkdir(parents=True)
    (root / "Pulumi.yaml").write_text(yaml.safe_dump(PROJECT), encoding="utf-8")
    (root / "Pulumi.staging.yaml").write_text("config: {}\n", encoding="utf-8")
    (root / "Pulumi.prod.yaml").write_text("config: {}\n", encoding="utf-8")
    (root / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(paths, "ROOT", root)
    assemble("1.0.0", ReleaseType.MAJOR)
    assemble("1.1.0", ReleaseType.MINOR)
    return root


def assemble(version: str, kind: ReleaseType) -> Path:
    folder = paths.RELEASES / version
    folder.mkdir(parents=True)
    manifest = Manifest(
        version=version,
        type=kind,
        commit="0" * 40,
        dirty=False,
        images={"forecast": IMAGE},
        schema_=Schema(revision="0001", compatible=("0001",)),
        flags=Flags(file="flags.json", sha256=hashlib.sha256(FLAGS.encode()).hexdigest()),
    )
    (folder / "release.yaml").write_text(manifest.to_yaml(), encoding="utf-8")
    (folder / "flags.json").write_text(FLAGS, encoding="utf-8")
    return folder


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def api(project: Path) -> Iterator[KubernetesApi]:
    """An API in the place of the embedded cluster's."""
    paths.CLUSTER.mkdir()
    with KubernetesApi() as server:
        assert server.kubeconfig(paths.CLUSTER) == paths.KUBECONFIG
        yield server


def keep_record(api: KubernetesApi, number: int) -> None:
    opening = Opening(
        environment="staging",
        deployment=number,
        version="1.0.0",
        type="major",
        inputs="1" * 64,
        manifest_sha256=records.sha256("m"),
        images={"forecast": IMAGE},
        flags_sha256="f" * 64,
        who="ada@laptop",
    )
    before = Link(deployment=number - 1, sha256="0" * 64) if number > 1 else None
    record = records.open_record(opening, before, datetime(2026, 3, 1, 12, tzinfo=UTC))
    api.add("configmaps", records.config_map(record, "m", "staging-records"))
