"""Makes the tests use the source tree that they lie in; gives them the demand history and the other releases' trees."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

TREE = Path(__file__).resolve().parents[1]

# A composed release is tested by its own code, whatever else the interpreter has on its path.
sys.path.insert(0, str(TREE))

# A composed tree is one release; what holds between releases is checked where they lie.
collect_ignore = [] if (TREE / "releases").is_dir() else ["unit/test_releases.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of tests that need a PostgreSQL server in TEST_DATABASE_URL."""
    config.addinivalue_line("markers", "postgres: needs an empty PostgreSQL database in TEST_DATABASE_URL")


@pytest.fixture(scope="session")
def tree() -> Path:
    """The source tree under test."""
    return TREE


@pytest.fixture(scope="session")
def demand_file() -> Path:
    """The packaged demand history: one number of megawatts a line."""
    if given := os.environ.get("DEMAND_FILE"):
        return Path(given)
    packaged = TREE / "energy_forecast" / "data" / "demand.csv"
    if packaged.is_file():
        return packaged
    if importlib.util.find_spec("tools") and importlib.util.find_spec("tools.demand"):
        return cast(Path, importlib.import_module("tools.demand").ensure_demand())
    raise pytest.UsageError(f"{packaged} is missing: set DEMAND_FILE to the demand history")


@pytest.fixture(scope="session")
def releases() -> dict[str, dict[str, Any]]:
    """Every release.yaml by version; none in a composed tree."""
    paths = sorted((TREE / "releases").glob("*/release.yaml"))
    return {path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


@pytest.fixture(scope="session")
def compose(releases: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the source tree of a release: the base with the overlays of the release and of those it comes after."""
    made: dict[str, Path] = {}

    def tree_of(version: str) -> Path:
        if version not in made:
            target = tmp_path_factory.mktemp("trees") / version
            for part in ("energy_forecast", "migrations"):
                shutil.copytree(TREE / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("flags.json", "CHANGELOG.md"):
                shutil.copyfile(TREE / name, target / name)
            for each in lineage(version):
                overlay = TREE / "releases" / each / "files"
                for path in releases[each]["delete"]:
                    (target / path).unlink()
                if overlay.is_dir():
                    shutil.copytree(overlay, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            made[version] = target
        return made[version]

    def lineage(version: str) -> list[str]:
        after = releases[version]["after"]
        return [*(lineage(after) if after else []), version]

    return tree_of
