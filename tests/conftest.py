"""Fixtures for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import postgres
from tools import paths

__all__ = ["postgres"]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's local folder, empty and of this test alone."""
    folder, real = tmp_path / "local", paths.LOCAL
    for name, value in list(vars(paths).items()):
        if isinstance(value, Path) and value.is_relative_to(real):
            monkeypatch.setattr(paths, name, folder / value.relative_to(real))
    folder.mkdir()
    return folder
