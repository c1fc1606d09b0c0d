"""Assembles a release: source tree, unit suite, image, and the release folder that `pulumi up` reads.

`.local/build/VERSION` gets the tree and `.local/releases/VERSION` gets `flags.json`, `evidence/unit.xml` and, last and
at once, `release.yaml`. Nothing tracked changes. Which files make a release is decided in `tools.source_tree`, how an
image is built in `tools.images`, and what a manifest may say in `release.manifest`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from release.manifest import MANIFEST_NAME, Manifest
from tools import command, images, lock, source_tree
from tools.demand import ensure_demand
from tools.errors import ToolError
from tools.paths import LOCAL, RELEASES, ROOT, display
from tools.progress import phase
from tools.source_tree import SourceTree

BUILD = LOCAL / "build"
FLAGS = "flags.json"
UNIT = "evidence/unit.xml"
DEMAND = "energy_forecast/data/demand.csv"
RELEASE_FILE = "release.json"
_SUITE_SECONDS = 900

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Where a tree comes from: `sha` is HEAD (40 hex digits), `dirty` whether `forecast/` differs from it."""

    sha: str
    dirty: bool


def assemble(version: str) -> Path:
    """Assemble one release and give its folder; a second time with nothing changed, every byte stays as it was.

    Raises ToolError for an unknown version, a clone without a commit, a unit suite that fails (naming the tests), and
    an image that cannot be built or pushed.
    """
    tree = source_tree.load(version)
    commit = head(ROOT)
    with lock.hold(BUILD / f"{version}.lock", wait=True):
        folder = _write_tree(tree, commit)
        suite = _unit_suite(tree, folder)
        image = images.build_forecast(folder, version, commit.sha)
        return _write_release(tree, commit, folder, suite, image)


def write_tree(version: str) -> Path:
    """Write one release's source tree only, for instance as the context of `docker build`, and give its folder."""
    tree = source_tree.load(version)
    commit = head(ROOT)
    with lock.hold(BUILD / f"{version}.lock", wait=True):
        return _write_tree(tree, commit)


def head(repository: Path) -> Commit:
    """The commit that is checked out. Raises ToolError where there is none."""
    sha = _git(repository, "rev-parse", "--verify", "--quiet", "HEAD")
    if sha is None:
        raise ToolError(
            f"{repository} has no commit, and a release names the commit it is made from: "
            'run `git init && git add --all && git commit --message "…"` there, or assemble in a clone.'
        )
    changes = _git(repository, "status", "--porcelain", "--untracked-files=all", "--", "forecast")
    return Commit(sha=sha, dirty=bool(changes))


def failures(report: Path) -> list[str]:
    """What speaks against a suite, one line each: tests that failed, each with its reason, or no tests at all."""
    try:
        cases = _cases(report)
    except (OSError, ElementTree.ParseError) as error:
        return [f"the suite wrote no JUnit report ({error})"]
    found = [_reason(case, wrong) for case in cases for kind in ("failure", "error") for wrong in case.findall(kind)]
    return found if cases else ["the suite has no tests"]


def _write_tree(tree: SourceTree, commit: Commit) -> Path:
    version = tree.definition.version
    folder, mark = BUILD / version, BUILD / f"{version}.tree"
    schema = {"compatible": list(tree.definition.schema_.compatible)}
    release = json.dumps({"version": version, "commit": commit.sha, "schema": schema}, sort_keys=True)
    generated = {DEMAND: ensure_demand().read_bytes(), RELEASE_FILE: f"{release}\n".encode()}
    digest = tree.digest(*(hashlib.sha256(content).hexdigest() for content in generated.values()))
    if not (_reads(mark) == digest and _holds(folder, tree, generated)):
        mark.unlink(missing_ok=True)
        tree.write(folder, generated)
        mark.write_text(digest)
    return folder


def _holds(folder: Path, tree: SourceTree, generated: Mapping[str, bytes]) -> bool:
    """Whether the tree on disk is still what it should be: someone may have worked in it."""
    names = {str(path): source.read_bytes() for path, source in tree.files.items()} | dict(generated)
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".pytest_cache"} & set(path.parts)
    }
    return present == set(names) and all((folder / name).read_bytes() == content for name, content in names.items())


def _unit_suite(tree: SourceTree, folder: Path) -> Path:
    """Run the tree's unit suite where it has not passed before on exactly these files; gives its JUnit report."""
    version = tree.definition.version
    report, mark = BUILD / f"{version}.unit.xml", BUILD / f"{version}.unit"
    # Without the commit: another one with the same files is proven by the same run.
    passed = tree.digest(_hash(folder / DEMAND), _interpreter())
    if report.is_file() and _reads(mark) == f"{passed} {_hash(report)}":
        return report
    mark.unlink(missing_ok=True)
    report.unlink(missing_ok=True)
    with phase(f"Unit suite of {version}") as current:
        output = _pytest(folder, report)
        wrong = failures(report)
        if wrong:
            log = BUILD / f"{version}.unit.log"
            log.write_text(output)
            raise ToolError(
                f"Release {version} is not assembled: its unit suite fails, {len(wrong)} of its tests:\n"
                + "\n".join(f"  {line}" for line in wrong[:20])
                + f"\nIts output is in {display(log)}. Run it again: cd {display(folder)} && "
                f"PYTHONPATH=. {sys.executable} -m pytest tests/unit"
            )
        current.note(f"{len(_cases(report))} tests passed")
    mark.write_text(f"{passed} {_hash(report)}")
    return report


def _reason(case: ElementTree.Element, wrong: ElementTree.Element) -> str:
    lines = (wrong.get("message") or wrong.text or "no reason given").strip().splitlines()
    name = ".".join(part for part in (case.get("classname"), case.get("name")) if part)
    return f"{name}: {lines[0]}"


def _cases(report: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 # pytest of this project has just written it


def _pytest(folder: Path, report: Path) -> str:
    # The tree's own settings and nothing of this repository's: neither its packages nor its configuration of pytest.
    arguments = [sys.executable, "-m", "pytest", "--quiet", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    arguments += [
        "--rootdir",
        str(folder),
        "-c",
        str(folder / "pyproject.toml"),
        "--junitxml",
        str(report),
        "tests/unit",
    ]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DEMAND_FILE"))}
    variables |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SUITE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"The unit suite in {display(folder)} did not end within {_SUITE_SECONDS} s.") from error
    if done.returncode != 0 and not failures(report):
        raise ToolError(f"pytest ended with exit code {done.returncode} in {display(folder)}:\n{done.stdout[-2000:]}")
    return done.stdout


def _write_release(tree: SourceTree, commit: Commit, folder: Path, suite: Path, image: str) -> Path:
    definition = tree.definition
    release = RELEASES / definition.version
    flags = folder / FLAGS
    if not flags.is_file():
        raise ToolError(
            f"Release {definition.version} has no {FLAGS} in its tree {display(folder)}: add forecast/{FLAGS}."
        )
    evidence = {
        "item": "unit-tests",
        "file": UNIT,
        "format": "junit",
        "sha256": _hash(suite),
        "producer": f"pytest {metadata.version('pytest')}",
    }
    manifest = Manifest.model_validate(
        {
            "version": definition.version,
            "type": definition.type,
            "commit": commit.sha,
            "dirty": commit.dirty,
            "images": {"forecast": image},
            "schema": definition.schema_,
            "flags": {"file": FLAGS, "sha256": _hash(flags)},
            "evidence": [evidence],
        }
    )
    _write(release / FLAGS, flags.read_bytes())
    _write(release / UNIT, suite.read_bytes())
    _write(release / MANIFEST_NAME, manifest.to_yaml().encode())
    return release


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _interpreter() -> str:
    """What a suite's result depends on besides the tree: this Python and the packages that are installed."""
    packages = sorted(f"{one.name}=={one.version}" for one in metadata.distributions())
    return "\n".join([sys.version, *packages])


def _git(repository: Path, *arguments: str) -> str | None:
    # Under sudo the clone belongs to someone else, which git refuses unless told.
    command_line = ["git", "-c", f"safe.directory={repository}", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ToolError("git is not on PATH, and a release names the commit it is made from: install git.") from error
    return done.stdout.strip() if done.returncode == 0 else None


def _reads(file: Path) -> str | None:
    return file.read_text() if file.is_file() else None


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@app.command()
def main(
    version: Annotated[str, typer.Argument(help="A release below forecast/releases, like 1.1.0.")],
    tree_only: Annotated[
        bool, typer.Option("--tree-only", help="Only write the source tree, and print its folder.")
    ] = False,
) -> None:
    """Assemble a release: run its unit suite, build and push its image, write its folder, and print the folder.

    Run again with nothing changed it changes nothing and takes less than a second.

    Examples:

        python -m tools.assemble 1.1.0

        docker build --tag forecast:1.1.0 "$(python -m tools.assemble 1.1.0 --tree-only)"
    """
    typer.echo(write_tree(version) if tree_only else assemble(version))


if __name__ == "__main__":
    command.run(app)
