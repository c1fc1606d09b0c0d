"""`make test`: the tiers of checks one after the other, with the minutes that each took.

What is checked is left to the tools' settings in pyproject.toml and to the tests themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from tools import command, paths, toolchain
from tools.environment import environment
from tools.errors import ToolError
from tools.progress import phase, say

STATIC = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)
UNIT = ("tests/unit", "tests/policies", "forecast/tests/unit")
DATABASE = ("tests/database",)
END_TO_END = ("tests/e2e",)


class Tier(StrEnum):
    """The tiers in the order in which they run."""

    STATIC = "static"
    UNIT = "unit"
    DATABASE = "database"
    SET_UP = "set-up"
    E2E = "e2e"


# Minutes of the whole budget of 90 on a machine with nothing built; later work adds its own.
BUDGET = {Tier.STATIC: 3.0, Tier.UNIT: 1.0, Tier.DATABASE: 3.0, Tier.SET_UP: 22.0, Tier.E2E: 10.0}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one tier ended; `minutes` is None for one that did not run because an earlier one failed."""

    tier: Tier
    passed: bool
    minutes: float | None


def run_tiers(tiers: Collection[Tier]) -> list[Outcome]:
    """Run the tiers; after a failure only the cheap ones still run, because they say more about its cause."""
    runners: dict[Tier, Callable[[], bool]] = {
        Tier.STATIC: _static,
        Tier.UNIT: _unit,
        Tier.DATABASE: _database,
        Tier.SET_UP: _set_up,
        Tier.E2E: _end_to_end,
    }
    outcomes: list[Outcome] = []
    for tier in Tier:
        if tier not in tiers:
            continue
        failed = any(not outcome.passed for outcome in outcomes)
        if failed and tier in {Tier.DATABASE, Tier.SET_UP, Tier.E2E}:
            outcomes.append(Outcome(tier=tier, passed=False, minutes=None))
            continue
        began = time.monotonic()
        passed = runners[tier]()
        outcomes.append(Outcome(tier=tier, passed=passed, minutes=(time.monotonic() - began) / 60))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Minutes per tier, one a line."""
    lines = []
    for outcome in outcomes:
        result = "passed" if outcome.passed else "FAILED"
        if outcome.minutes is None:
            lines.append(f"{outcome.tier:8}     -      not run, because an earlier tier failed")
            continue
        budget = BUDGET[outcome.tier]
        over = f", over its budget of {budget:g} min" if outcome.minutes > budget else ""
        lines.append(f"{outcome.tier:8} {outcome.minutes:5.1f} min  {result}{over}")
    total = sum(outcome.minutes or 0.0 for outcome in outcomes)
    return "\n".join([*lines, f"{'all':8} {total:5.1f} min"])


def _static() -> bool:
    bin_folder = paths.VENV / "bin"
    passed = True
    for name, *arguments in STATIC:
        say(f"$ {' '.join([name, *arguments])}")
        # All of them run: who mends one wants to know of the others too.
        passed &= subprocess.run([bin_folder / name, *arguments], cwd=paths.ROOT, check=False).returncode == 0
    return passed


def _unit() -> bool:
    return _pytest([folder for folder in UNIT if (paths.ROOT / folder).is_dir()], dict(os.environ))


def _database() -> bool:
    return _pytest(DATABASE, dict(os.environ))


def _set_up() -> bool:
    from tools import cluster, images

    try:
        with phase("toolchain"):
            toolchain.ensure()
        cluster.up()
        with phase("the program's own images"):
            images.ensure_program_images()
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


def _end_to_end() -> bool:
    # The tests are about the embedded cluster, whatever other one the user works on.
    base = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return _pytest(END_TO_END, {**base, **environment(None, base=base)})


def _pytest(folders: Sequence[str], environ: dict[str, str]) -> bool:
    arguments = [sys.executable, "-m", "pytest", *folders]
    say(f"$ pytest {' '.join(folders)}")
    return subprocess.run(arguments, cwd=paths.ROOT, env=environ, check=False).returncode == 0


def _stop_cluster() -> None:
    from tools import teardown

    teardown.stop_if_up()


def main(
    tiers: Annotated[list[Tier] | None, typer.Argument(help="Which tiers to run; all by default.")] = None,
) -> None:
    """Run checks and print the minutes per tier. With CI=true the embedded cluster is stopped at the end.

    Example: python -m tools.check static unit
    """
    wanted = set(tiers or Tier)
    if Tier.E2E in wanted:
        wanted.add(Tier.SET_UP)
    try:
        outcomes = run_tiers(wanted)
    finally:
        if os.environ.get("CI") == "true" and Tier.SET_UP in wanted:
            _stop_cluster()
    print(table(outcomes))
    raise typer.Exit(0 if all(outcome.passed for outcome in outcomes) else 1)


if __name__ == "__main__":
    command.run(lambda: typer.run(main))
