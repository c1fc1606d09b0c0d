"""The toolchain's command line: `python -m tools.toolchain ensure|path`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tools import command, paths, toolchain
from tools.progress import duration

app = typer.Typer(no_args_is_help=True, add_completion=False, help=toolchain.__doc__, rich_markup_mode=None)


@app.command()
def ensure(
    only: Annotated[
        list[toolchain.ToolName] | None, typer.Option(help="Only this tool; may be given more than once.")
    ] = None,
) -> None:
    """Make the tools available; what is there already costs nothing.

    \b
    Examples:
      python -m tools.toolchain ensure
      python -m tools.toolchain ensure --only pulumi --only language-python
    """
    began = time.monotonic()
    for tool in toolchain.ensure(only or ()).values():
        typer.echo(f"{tool.name:20} {tool.version:12} {tool.source}: {paths.display(tool.folder)}")
    typer.echo(f"in {duration(time.monotonic() - began)}")


@app.command()
def path() -> None:
    """Print the folder to put first on PATH.

    \b
    Example:
      PATH="$(python -m tools.toolchain path):$PATH" pulumi version
    """
    typer.echo(paths.TOOLCHAIN_BIN)


if __name__ == "__main__":
    command.run(app)
