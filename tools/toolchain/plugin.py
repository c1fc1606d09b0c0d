"""The Kubernetes provider as a plugin in the project's own PULUMI_HOME: fetched by the user's pulumi, or built here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools import lock, paths
from tools.errors import ToolError
from tools.progress import phase, say
from tools.toolchain import build
from tools.toolchain.specs import KUBERNETES_PROVIDER, PROVIDER_VERSION

FETCH_SECONDS = 600


def folder() -> Path:
    """Where pulumi keeps the plugin."""
    return paths.PULUMI_HOME / "plugins" / f"resource-kubernetes-v{PROVIDER_VERSION}"


def is_installed() -> bool:
    """Whether the plugin is there, whole, and (where it was built here) made from the sources as they are now."""
    plugin = folder()
    # Pulumi puts this file beside a plugin for as long as it unpacks it.
    if not (plugin / "pulumi-resource-kubernetes").is_file() or plugin.with_name(f"{plugin.name}.partial").exists():
        return False
    stamp = _stamp()
    return not stamp.is_file() or stamp.read_text(encoding="ascii") == build.key(KUBERNETES_PROVIDER)


def install(pulumi: Path, *, may_fetch: bool) -> Path:
    """The plugin's folder; the plugin is fetched or built, and installed with `pulumi`, when it is not there.

    `may_fetch` lets `pulumi` load the published plugin from the network first; where that fails it is built. Raises
    ToolError when neither works.
    """
    if is_installed():
        return folder()
    with lock.hold(paths.TOOLCHAIN / "plugin.lock", wait=True):
        if is_installed():
            return folder()
        if may_fetch and _fetch(pulumi):
            _stamp().unlink(missing_ok=True)
            return folder()
        binary = build.build(KUBERNETES_PROVIDER) / KUBERNETES_PROVIDER.packages[0].file
        with phase(f"install the Kubernetes provider {PROVIDER_VERSION} into {paths.display(paths.PULUMI_HOME)}"):
            said = _pulumi(pulumi, ["--file", str(binary), "--reinstall"], timeout=None)
        if said is not None:
            raise ToolError(f"{pulumi} could not install the Kubernetes provider from {binary}:\n{said}")
        _stamp().write_text(build.key(KUBERNETES_PROVIDER), encoding="ascii")
    return folder()


def _fetch(pulumi: Path) -> bool:
    with phase(f"fetch the Kubernetes provider {PROVIDER_VERSION}") as shown:
        said = _pulumi(pulumi, ["--reinstall"], timeout=FETCH_SECONDS)
        if said is not None:
            shown.note("not to be had, so it is built instead")
    if said is not None:
        say(f"  pulumi said: {said.splitlines()[-1] if said else 'nothing'}")
    return said is None


def _pulumi(pulumi: Path, arguments: Sequence[str], *, timeout: float | None) -> str | None:
    """Run `pulumi plugin install` for the provider; None when it went well, else what it said."""
    paths.PULUMI_HOME.mkdir(parents=True, exist_ok=True)
    command = [str(pulumi), "plugin", "install", "resource", "kubernetes", PROVIDER_VERSION, *arguments]
    environ = {**os.environ, "PULUMI_HOME": str(paths.PULUMI_HOME), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    return None if done.returncode == 0 else (done.stderr + done.stdout).strip()


def _stamp() -> Path:
    # Beside the plugin's folder, not in it: `pulumi plugin rm` and a reinstall treat that one as theirs.
    return paths.PULUMI_HOME / f"kubernetes-provider-{PROVIDER_VERSION}.built-from"
