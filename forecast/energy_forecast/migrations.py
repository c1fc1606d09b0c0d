"""Hands out the Alembic script folder: `python -m energy_forecast.migrations TARGET` copies it there.

Running the migrations belongs to the release: its own image has Alembic and a role that owns the schema, this one
need not.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"


def copy_scripts(source: Path, target: Path) -> int:
    """Copy every file below `source` to `target` and return how many. Raises OSError.

    Content only: the target is usually a mounted volume whose owner and times this user may not change.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise FileNotFoundError(2, "no migration scripts in", str(source))
    for path in files:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return len(files)


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m energy_forecast.migrations TARGET", file=sys.stderr)
        return 2
    try:
        count = copy_scripts(SCRIPTS, Path(arguments[0]))
    except OSError as error:
        print(f"the migration scripts cannot be copied to {arguments[0]}: {error}", file=sys.stderr)
        return 1
    print(f"{count} files copied from {SCRIPTS} to {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
