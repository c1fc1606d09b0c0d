"""`python -m tools.images`: the program's own images, built and pushed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tools import command
from tools.images import base, ensure_program_images

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, image name to reference.")] = False,
    refresh: Annotated[
        bool, typer.Option(help="Build anew, with today's Debian packages (without Docker only).")
    ] = False,
) -> None:
    """Build the images of the steps and of PostgreSQL, push them, and print each by digest.

    They go to the embedded cluster's registry, or to the one that RELEASE_REGISTRY names. What was pushed before from
    the same inputs is not built again.

    Examples:

        python -m tools.images

        RELEASE_REGISTRY=registry.example.com/team python -m tools.images --json
    """
    if refresh:
        base.refresh()
    images = ensure_program_images()
    if as_json:
        typer.echo(json.dumps(images))
    else:
        for name, reference in images.items():
            typer.echo(f"{name} {reference}")


if __name__ == "__main__":
    command.run(app)
