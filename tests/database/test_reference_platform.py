"""The reference platform's own tests on a real PostgreSQL: its migrations, its old code on new schemas, its worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.postgres import Postgres
from tools import paths


def test_the_platforms_own_suite_passes_on_postgresql(postgres: Postgres) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "forecast/tests/postgres"],
        cwd=paths.ROOT,
        env={**os.environ, "TEST_DATABASE_URL": postgres.admin},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE), done.stdout[-2000:]
