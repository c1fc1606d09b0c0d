"""The pinned command-line tools: `pulumi`, its Python language host and Kubernetes provider, Kubernetes, CoreDNS.

What the user has in a good version is taken, everything else is built from Go modules pinned by go.sum. The Go modules
lie beside this package (`pulumi/`, `language-python/`, `kubernetes-provider/`) and in `tools/cluster/`. Running the
binaries is left to `tools.cluster` and the release's own command line.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from release.errors import UsageError
from tools import lock, paths
from tools.progress import say
from tools.toolchain import build, machine, plugin
from tools.toolchain.specs import BINARIES, COREDNS, KUBERNETES, LANGUAGE_PYTHON, PULUMI, GoBinary


class ToolName(StrEnum):
    """The tools that can be asked for, in the order in which they are made."""

    PULUMI = "pulumi"
    LANGUAGE_PYTHON = "language-python"
    KUBERNETES_PROVIDER = "kubernetes-provider"
    KUBERNETES = "kubernetes"
    COREDNS = "coredns"
    KUBECTL = "kubectl"


class Source(StrEnum):
    """Where a tool comes from."""

    BUILT = "built here"
    MACHINE = "of this machine"
    PLUGIN = "a plugin in PULUMI_HOME"


# What a release to a cluster of the user's own needs; the embedded cluster needs all.
FOR_RELEASES = (ToolName.PULUMI, ToolName.LANGUAGE_PYTHON, ToolName.KUBERNETES_PROVIDER)
EXECUTABLES = {
    ToolName.PULUMI: ("pulumi",),
    ToolName.LANGUAGE_PYTHON: (
        "pulumi-language-python",
        "pulumi-language-python-exec",
        "pulumi-analyzer-policy-python",
        "pulumi-resource-pulumi-python",
    ),
    ToolName.KUBECTL: ("kubectl",),
}


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One tool that is there: `folder` holds its executables."""

    name: ToolName
    version: str
    source: Source
    folder: Path


def ensure(only: Collection[str] = (), *, environ: Mapping[str, str] = os.environ) -> dict[str, Tool]:
    """Make the tools available, all of them or those named in `only`, and return them by name.

    What is there costs nothing. Afterwards the folder `paths.TOOLCHAIN_BIN` holds those commands for people that were
    built here. Raises UsageError for an unknown name, ToolError when something cannot be built.
    """
    unknown = sorted(set(only) - set(ToolName))
    if unknown:
        raise UsageError(f"no such tool: {', '.join(unknown)}; there are {', '.join(ToolName)}")
    wanted = [name for name in ToolName if not only or name in only]
    chooser = _Chooser(environ)
    tools: dict[str, Tool] = {str(name): chooser.choose(name) for name in wanted}
    with lock.hold(paths.TOOLCHAIN / "links.lock", wait=True):
        for name in wanted:
            _link(tools[name])
    return tools


class _Chooser:
    """Chooses each tool once: one that was built, else a good one of the machine, else one built now."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._chosen: dict[ToolName, Tool] = {}

    def choose(self, name: ToolName) -> Tool:
        if name not in self._chosen:
            self._chosen[name] = self._make(name)
        return self._chosen[name]

    def _make(self, name: ToolName) -> Tool:
        match name:
            case ToolName.PULUMI:
                return self._of_machine(name, PULUMI) or _built(name, PULUMI)
            case ToolName.LANGUAGE_PYTHON:
                return self._language_host()
            case ToolName.KUBERNETES_PROVIDER:
                return self._provider()
            case ToolName.KUBECTL:
                return self._of_machine(name, KUBERNETES) or _built(name, KUBERNETES)
            case ToolName.KUBERNETES:
                return _built(name, KUBERNETES)
            case ToolName.COREDNS:
                return _built(name, COREDNS)

    def _of_machine(self, name: ToolName, binary: GoBinary) -> Tool | None:
        # A built one stays in use, so that a state is not worked on by two versions in turn.
        if build.is_built(binary):
            return None
        find = machine.find_pulumi if name is ToolName.PULUMI else machine.find_kubectl
        found = find(self._environ)
        if found is None:
            return None
        if found.refused:
            say(f"{found.executable} {found.refused}: not taken")
            return None
        return Tool(name=name, version=found.version, source=Source.MACHINE, folder=found.executable.parent)

    def _language_host(self) -> Tool:
        name, pulumi = ToolName.LANGUAGE_PYTHON, self.choose(ToolName.PULUMI)
        # A released pulumi brings its language hosts beside it, also where PATH has only a link to it.
        beside = (pulumi.folder / "pulumi").resolve().parent
        if pulumi.source is Source.MACHINE and (beside / "pulumi-language-python").is_file():
            return Tool(name=name, version=pulumi.version, source=Source.MACHINE, folder=beside)
        return _built(name, LANGUAGE_PYTHON)

    def _provider(self) -> Tool:
        pulumi = self.choose(ToolName.PULUMI)
        may_fetch = pulumi.source is Source.MACHINE
        folder = plugin.install(pulumi.folder / "pulumi", may_fetch=may_fetch)
        return Tool(
            name=ToolName.KUBERNETES_PROVIDER,
            version=BINARIES["kubernetes-provider"].version,
            source=Source.PLUGIN,
            folder=folder,
        )


def _built(name: ToolName, binary: GoBinary) -> Tool:
    return Tool(name=name, version=binary.version, source=Source.BUILT, folder=build.build(binary))


def _link(tool: Tool) -> None:
    """Let `paths.TOOLCHAIN_BIN` show what was chosen: what was built, and nothing of what the machine has."""
    for executable in EXECUTABLES.get(tool.name, ()):
        link = paths.TOOLCHAIN_BIN / executable
        if tool.source is not Source.BUILT:
            link.unlink(missing_ok=True)
            continue
        target = (tool.folder / executable).resolve()
        if link.exists() and link.samefile(target):
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{executable}.new")
        fresh.unlink(missing_ok=True)
        try:
            # Hard links: pulumi looks for its language hosts beside its own real path, and warns of any other place.
            fresh.hardlink_to(target)
        except OSError:
            fresh.symlink_to(target)
        fresh.replace(link)
