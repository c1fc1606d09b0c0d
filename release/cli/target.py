"""What was typed, made sure of: the environment with its configuration file, and the assembled release.

Where files lie belongs to `tools.paths`, the engine's variables to `tools.environment`, what a release is to
`release.manifest`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from release import manifest
from release.errors import ReleaseError, UsageError
from tools import paths
from tools.environment import environment as engine_variables

# `<env>-records` is the longest name made of it, and a namespace's name ends at 63 characters.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Target:
    """An environment and the configuration file that its stack uses; `tracked` when that file is in the repository."""

    environment: str
    config_file: Path
    tracked: bool

    def value(self, key: str) -> str | None:
        """The text of a plain key in the file, None when it is not there or no text."""
        value = _config(self.config_file).get(key)
        return value if isinstance(value, str) and value else None


def find(environment: str) -> Target:
    """The target of that name; also sets this process's variables so that the engine and the cluster are found.

    Raises UsageError for what is no environment here, naming those that are.
    """
    if not _NAME.fullmatch(environment):
        raise UsageError(f"{environment!r} is no environment; write it like staging (a-z, 0-9 and -, at most 40)")
    known = _known()
    if environment not in known:
        raise UsageError(
            f"there is no environment {environment!r}: no {paths.display(paths.stack_file(environment))}; "
            f"there {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}"
        )
    os.environ.update(engine_variables(environment))
    chosen = os.environ.get("PULUMI_OPTION_CONFIG_FILE")
    file = paths.ROOT / chosen if chosen else paths.stack_file(environment)
    if not file.is_file():
        # The engine itself would go on with an empty configuration.
        raise ReleaseError(f"the stack's configuration {file} does not exist (PULUMI_OPTION_CONFIG_FILE)")
    return Target(environment=environment, config_file=file, tracked=file == paths.stack_file(environment))


def find_release(version: str) -> manifest.Release:
    """The assembled release of that version, loaded and verified.

    Raises UsageError for what is no version or is known nowhere, ReleaseError when it was never assembled,
    ManifestError when its folder is damaged.
    """
    try:
        manifest.parse_version(version)
    except ValueError as error:
        raise UsageError(f"VERSION: {error}") from error
    folder = paths.RELEASES / version
    if not folder.is_dir():
        assembled, sources = _versions(paths.RELEASES), _versions(paths.ROOT / "forecast" / "releases")
        text = (
            f"release {version} is not assembled; assembled: {', '.join(assembled) or 'none'}; "
            f"known: {', '.join(sources) or 'none'}"
        )
        if version in sources:
            raise ReleaseError(f"{text}; assemble and release it with `make up VERSION={version}`")
        raise UsageError(f"{text}; to assemble one of these, run `make up VERSION=…`")
    release = manifest.load(folder)
    if release.manifest.version != version:
        raise ReleaseError(f"{folder} holds release {release.manifest.version}, not {version}; assemble it again")
    return release


def next_version(version: str) -> str | None:
    """The smallest known version above `version`, None when there is none."""
    known = {*_versions(paths.RELEASES), *_versions(paths.ROOT / "forecast" / "releases")}
    higher = [other for other in known if manifest.parse_version(other) > manifest.parse_version(version)]
    return min(higher, key=manifest.parse_version, default=None)


def _known() -> list[str]:
    files = [*paths.ROOT.glob("Pulumi.*.yaml"), *paths.STACKS.glob("Pulumi.*.yaml")]
    return sorted({file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files})


def _versions(folder: Path) -> list[str]:
    found = []
    for entry in folder.iterdir() if folder.is_dir() else []:
        try:
            found.append((manifest.parse_version(entry.name), entry.name))
        except ValueError:
            continue
    return [name for _, name in sorted(found)]


def _config(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{file}: the stack's configuration cannot be read: {error}") from error
    config = document.get("config") if isinstance(document, dict) else None
    return config if isinstance(config, dict) else {}
