"""The ground of the end-to-end tests: tools, cluster, images and releases, made as `make up` makes them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import lightkube
import pytest

from release import cluster as way
from tests.e2e import releases
from tests.e2e.stack import Stack
from tools import assemble, cluster, images, paths, toolchain


@pytest.fixture(scope="session")
def toolchain_bin() -> Path:
    """The folder with pulumi and what it needs beside it."""
    toolchain.ensure(toolchain.FOR_RELEASES)
    return paths.TOOLCHAIN_BIN


@pytest.fixture(scope="session")
def program_images() -> dict[str, str]:
    """The images of the steps and of PostgreSQL, on a running embedded cluster."""
    toolchain.ensure()
    cluster.up()
    return images.ensure_program_images()


@pytest.fixture(scope="session")
def client(program_images: dict[str, str], monkeypatch_session: pytest.MonkeyPatch) -> lightkube.Client:
    """The embedded cluster."""
    monkeypatch_session.setenv("KUBECONFIG", str(paths.KUBECONFIG))
    return way.connect(None)


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch that lasts for the session."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session")
def assembled(program_images: dict[str, str]) -> Iterator[dict[str, Path]]:
    """The releases that the tests deploy, by version; those that only the tests know are removed again."""
    found = {version: assemble.assemble(version) for version in ("1.0.0", "1.1.0")}
    planted = {releases.PLANTED: releases.planted(), releases.UNBUILT: releases.unbuilt(found["1.1.0"])}
    yield {**found, **planted}
    for folder in planted.values():
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def staging(
    program_images: dict[str, str],
    client: lightkube.Client,
    assembled: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A fresh environment of its own; its namespaces go with the module."""
    name = f"e2e-{secrets.token_hex(3)}"
    stack = Stack(name=name, state=tmp_path_factory.mktemp("state"), images=program_images, client=client)
    stack.configure("1.0.0")
    yield stack
    stack.remove()
