"""The environment in which plain `pulumi` works on this project: tools, state, secrets, cluster and configuration.

Only what has to differ from the user's own environment is given, and what the user chose wins. Building the tools is
left to `tools.toolchain`, starting the cluster to `tools.cluster`, the stack's configuration to `tools.stack`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
import yaml

from tools import paths

# The key of a stack's configuration that names a cluster of the user's own.
CONTEXT_KEY = "kubernetes:context"


def environment(stack: str | None, *, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables to set on top of `base` (the process's own) for `pulumi` and `kubectl`.

    `stack` is a stack's name such as `staging`, or None when no stack's configuration is concerned. Creates the
    folder of the state and the passphrase when they are missing, since both are needed by the first command.
    """
    variables = {
        "PATH": _path(base),
        "PULUMI_HOME": str(paths.PULUMI_HOME),
        # Every provider package in the virtual environment would otherwise be looked for on the network at each start.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    if not base.get("PULUMI_BACKEND_URL"):
        paths.STATE.mkdir(parents=True, exist_ok=True)
        variables["PULUMI_BACKEND_URL"] = f"file://{paths.STATE}"
    # An empty passphrase is a choice as well, so presence counts, not content.
    if "PULUMI_CONFIG_PASSPHRASE" not in base and not base.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        variables["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(passphrase_file())
    if not uses_own_cluster(stack, base=base):
        variables["KUBECONFIG"] = str(paths.KUBECONFIG)
        variables |= _around_proxies(base)
    if stack is not None:
        variables |= _configuration(stack, base, embedded="KUBECONFIG" in variables)
    return variables


def uses_own_cluster(stack: str | None, *, base: Mapping[str, str] = os.environ) -> bool:
    """Whether the user chose a cluster: by KUBECONFIG, or by a context in the stack's tracked configuration."""
    chosen = base.get("KUBECONFIG")
    if chosen and Path(chosen) != paths.KUBECONFIG:
        return True
    if stack is None:
        return False
    file = paths.stack_file(stack)
    if not file.is_file():
        return False
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    config = document.get("config") if isinstance(document, dict) else None
    return isinstance(config, dict) and bool(config.get(CONTEXT_KEY))


def passphrase_file() -> Path:
    """The file with the passphrase of the stacks' secrets (mode 600), made at random the first time."""
    if not paths.PASSPHRASE.exists():
        paths.LOCAL.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=paths.LOCAL, prefix="passphrase.", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
            # A link fails when another process was first; a rename would replace a passphrase already in use.
            with contextlib.suppress(FileExistsError):
                os.link(file.name, paths.PASSPHRASE)
    return paths.PASSPHRASE


def _around_proxies(base: Mapping[str, str]) -> dict[str, str]:
    """The node is on this machine: where a proxy is set, its address has to go around it."""
    if not paths.KUBECONFIG.is_file() or not any(base.get(name) for name in ("HTTPS_PROXY", "https_proxy")):
        return {}
    server = yaml.safe_load(paths.KUBECONFIG.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"]
    address = urlsplit(server).hostname or ""
    around = [entry for entry in (base.get("NO_PROXY") or base.get("no_proxy") or "").split(",") if entry]
    listed = ",".join(around if address in around else [*around, address])
    return {"NO_PROXY": listed, "no_proxy": listed}


def export_lines(variables: Mapping[str, str]) -> str:
    """The variables as lines that a POSIX shell evaluates."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def _configuration(stack: str, base: Mapping[str, str], *, embedded: bool) -> dict[str, str]:
    chosen = base.get("PULUMI_OPTION_CONFIG_FILE", "")
    inherited = bool(chosen) and Path(chosen).is_relative_to(paths.STACKS)
    if chosen and not inherited:
        return {}
    copy = paths.stack_copy(stack)
    if embedded and copy.is_file():
        return {"PULUMI_OPTION_CONFIG_FILE": str(copy)}
    # In the shell of one stack, work on another must not use the first one's configuration.
    return {"PULUMI_OPTION_CONFIG_FILE": str(paths.stack_file(stack))} if inherited else {}


def _path(base: Mapping[str, str]) -> str:
    first = [str(paths.TOOLCHAIN_BIN), str(paths.VENV / "bin")]
    rest = [folder for folder in base.get("PATH", os.defpath).split(os.pathsep) if folder and folder not in first]
    return os.pathsep.join([*first, *rest])


def main(
    stack: Annotated[str | None, typer.Option(help="Also point pulumi at this stack's configuration.")] = None,
) -> None:
    """Print the environment for plain pulumi as `export` lines.

    Example: eval "$(python -m tools.environment --stack staging)" && pulumi preview -s staging
    """
    typer.echo(export_lines(environment(stack)), nl=False)


if __name__ == "__main__":
    typer.run(main)
