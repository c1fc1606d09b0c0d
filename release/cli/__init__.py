"""The command line `release`: reads what was typed, calls what does it, turns errors into text and an exit code.

Exit codes: 0 done, 1 blocked or failed (the reason is on standard error), 2 usage. It saves typing and watches; the
deploying is done by `pulumi up` on the same program.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from release.errors import ReleaseError, UsageError

FAILED = 1
USAGE = 2


class _Commands(TyperGroup):
    """Commands whose ReleaseErrors end them with text and a code, not with a traceback."""

    # typer's own copy of click has the context's type, under a private name.
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ReleaseError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(USAGE if isinstance(error, UsageError) else FAILED) from error


app = typer.Typer(
    cls=_Commands,
    help="Releases of the Energy Forecast Platform. `release up staging 1.1.0` is `pulumi up -s staging`, watched.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Environment = Annotated[str, typer.Argument(metavar="ENV", help="The environment, which is the stack's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print stable JSON instead (docs/json.md).")]


def _show_version(wanted: bool) -> None:
    if wanted:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        typer.echo(project["version"])
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def up(
    environment: Environment,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The assembled release, such as 1.1.0.")],
    preview: Annotated[bool, typer.Option("--preview", help="Show what would happen; change nothing.")] = False,
) -> None:
    """Release VERSION to ENV, or go on with it where an earlier update stopped.

    Example: release up staging 1.1.0
    """
    # The Automation API takes most of a second to import, which the other commands need not wait for.
    from release.cli.up import preview as show
    from release.cli.up import up as run

    raise typer.Exit(show(environment, version) if preview else run(environment, version))


@app.command()
def status(environment: Environment, as_json: AsJson = False) -> None:
    """Show what runs in ENV: version, schema revision, pods, URL, and what is under way.

    Example: release status staging --json
    """
    from release.cli.reports import status as report

    typer.echo(report(environment, as_json=as_json))


@app.command()
def history(
    environment: Environment,
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain of records; exit code 1 when it does not hold.")
    ] = False,
) -> None:
    """List the deployments of ENV, from their records.

    Example: release history staging --verify
    """
    from release.cli.reports import history as report

    text, sound = report(environment, as_json=as_json, verify=verify)
    typer.echo(text)
    if not sound:
        typer.echo(f"error: the records of {environment} do not hold; see above", err=True)
        raise typer.Exit(FAILED)


def main() -> None:
    """The entry point of `release` and of `python -m release.cli`; ends the process with the exit code."""
    app(prog_name="release")
