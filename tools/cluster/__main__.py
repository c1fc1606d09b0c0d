"""`python -m tools.cluster`: the embedded cluster by hand. What the commands do is in the package."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tools import cluster as embedded
from tools.cluster import instance as instances
from tools.cluster import outside, privilege
from tools.cluster.commands import find
from tools.cluster.components import NAMES
from tools.command import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The embedded single-node Kubernetes of this clone.",
)


@app.command(epilog="Example: python -m tools.cluster up && kubectl --kubeconfig .local/cluster/kubeconfig get pods -A")
def up(
    kubernetes: Annotated[
        Path | None, typer.Option(help="Folder with hyperkube and etcd; the toolchain's when not given.")
    ] = None,
    coredns: Annotated[Path | None, typer.Option(help="Folder with coredns; the toolchain's when not given.")] = None,
) -> None:
    """Start the cluster and wait until it is ready; at once when it is."""
    if (kubernetes is None) != (coredns is None):
        raise typer.BadParameter("give both --kubernetes and --coredns, or neither")
    binaries = embedded.Binaries(kubernetes=kubernetes, coredns=coredns) if kubernetes and coredns else None
    here = embedded.up(binaries)
    print(f"kubeconfig {here.kubeconfig}\ncontext    {here.context}\nnode       {here.node_address}")
    print(f"registry   {here.registry} (in image references: {here.registry_name}), CA {here.registry_ca}")


@app.command(epilog="Example: python -m tools.cluster down && python -m tools.cluster up")
def down() -> None:
    """Stop the cluster and keep its data."""
    embedded.down()


@app.command(epilog="Example: python -m tools.cluster clean")
def clean() -> None:
    """Stop the cluster and remove its data and everything of it on this machine, also after a crash."""
    embedded.clean()


@app.command(epilog="Example: python -m tools.cluster status --json | jq .up")
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the components. Exit code 0 when all is well, 1 otherwise."""
    now = embedded.status()
    if as_json:
        print(json.dumps(asdict(now), indent=1))
    else:
        table = Table(title=f"{now.name}: {'up' if now.up else 'not up'}, {now.memory >> 20} MiB resident")
        for column in ("component", "process", "ready", "restarts", "since", "last exit", "MiB"):
            table.add_column(column)
        for one in now.components:
            table.add_row(
                one.name,
                str(one.pid or ""),
                "yes" if one.ready else "no",
                str(one.restarts),
                one.since,
                one.last_exit,
                str(one.memory >> 20),
            )
        Console().print(table)
    raise typer.Exit(0 if now.up else 1)


@app.command(epilog="Example: python -m tools.cluster clean && python -m tools.cluster leftovers")
def leftovers() -> None:
    """List what of this clone's cluster is on the machine outside of its folder, as JSON.

    Exit code 0 when nothing is, 1 otherwise, which is right while it runs.
    """
    found = embedded.leftovers()
    print(json.dumps(asdict(found), indent=1))
    raise typer.Exit(1 if found else 0)


@app.command(
    "exec",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: python -m tools.cluster exec -- ctr containers list",
)
def execute(command: Annotated[list[str], typer.Argument(help="Program of the node and its arguments.")]) -> None:
    """Run a command in the node's namespaces, with its programs (ctr, iptables, conntrack, …) on PATH."""
    if not privilege.is_root():
        privilege.as_root(["exec", "--", *command])
        return
    inside = outside.command_inside(instances.load(), command)
    sys.exit(subprocess.run(inside, check=False).returncode)


@app.command(epilog="Example: python -m tools.cluster logs kubelet --lines 200 --follow")
def logs(
    component: Annotated[str, typer.Argument(help=f"One of: supervisor, {', '.join(NAMES)}.")] = "supervisor",
    lines: Annotated[int, typer.Option(help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
) -> None:
    """Print a component's log."""
    if component not in ("supervisor", *NAMES):
        raise typer.BadParameter(f"{component} is none of: supervisor, {', '.join(NAMES)}")
    file = instances.load().logs / f"{component}.log"
    if not file.is_file():
        raise typer.BadParameter(f"{file} does not exist: the cluster never ran")
    subprocess.run([find("tail"), f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), str(file)])


if __name__ == "__main__":
    run(app)
