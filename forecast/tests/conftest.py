"""Makes the tests use the source tree that they lie in, and gives them the demand history."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import cast

import pytest

TREE = Path(__file__).resolve().parents[1]

# A composed release is tested by its own code, whatever else the interpreter has on its path.
sys.path.insert(0, str(TREE))


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
