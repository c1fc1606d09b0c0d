"""The source tree of one release: what `forecast/` holds, and what the releases on the way to that version replaced.

`forecast/` is the first release. Each release is a folder `forecast/releases/VERSION` with `release.yaml` (its type,
the release it comes after, its database schema, notes) and `files/`, whole files that it adds or replaces; so every
release can be assembled at any time. Testing, building and writing down a release is left to `tools.assemble`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from release.manifest import ReleaseType, Schema, VersionText, parse_version
from tools.errors import ToolError
from tools.paths import ROOT, display

FORECAST = ROOT / "forecast"
_NOT_SOURCE = ("releases", "build", "dist")


class Definition(BaseModel):
    """One release's `release.yaml`; `after` is the version it builds on, None for the first."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: VersionText
    type: ReleaseType = Field(strict=False)
    after: VersionText | None
    # `schema` is a deprecated method of BaseModel, so the attribute has another name than the key.
    schema_: Schema = Field(alias="schema")
    notes: dict[str, Any] = Field(default_factory=dict)
    delete: tuple[str, ...] = Field(default=(), strict=False)


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """A release's files: `files` maps each path in the tree to the file of the repository that it is a copy of."""

    definition: Definition
    files: Mapping[PurePosixPath, Path]

    def digest(self, *more: str) -> str:
        """The hash (64 hex digits) of every path and content, and of `more`."""
        sums = {str(path): _hash(source) for path, source in self.files.items()}
        document = json.dumps([self.definition.model_dump(mode="json", by_alias=True), sums, more], sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()

    def write(self, folder: Path, generated: Mapping[str, bytes]) -> None:
        """Write the tree to `folder`, with `generated` files added; nothing else is left in the folder."""
        shutil.rmtree(folder, ignore_errors=True)
        for path, source in self.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        for name, content in generated.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def definitions(forecast: Path = FORECAST) -> dict[str, Definition]:
    """Every release that is defined, oldest first. Raises ToolError for a definition that is wrong."""
    found = [_definition(file) for file in (forecast / "releases").glob("*/release.yaml")]
    return {one.version: one for one in sorted(found, key=lambda one: parse_version(one.version))}


def load(version: str, forecast: Path = FORECAST) -> SourceTree:
    """The tree of one release.

    Raises ToolError for an unknown version (naming the known ones) and for a chain of releases that is broken.
    """
    known = definitions(forecast)
    if version not in known:
        names = ", ".join(known) or "none"
        raise ToolError(f"No release {version} is defined in {display(forecast / 'releases')}; there are: {names}.")
    files = _base(forecast)
    for definition in _chain(version, known, forecast):
        folder = forecast / "releases" / definition.version
        _remove(files, definition, folder)
        overlay = folder / "files"
        files.update({PurePosixPath(path.relative_to(overlay)): path for path in _walk(overlay)})
    return SourceTree(definition=known[version], files=dict(sorted(files.items())))


def _definition(file: Path) -> Definition:
    try:
        definition = Definition.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToolError(
            f"{display(file)} cannot be read: {error}. Mend it, then run the same command again."
        ) from error
    except ValidationError as error:
        lines = (f"  {'.'.join(map(str, one['loc'])) or 'release'}: {one['msg']}" for one in error.errors())
        advice = "Revisions and versions are text: write them in quotes."
        raise ToolError(f"{display(file)} defines no release:\n" + "\n".join(lines) + f"\n{advice}") from error
    if definition.version != file.parent.name:
        raise ToolError(
            f"{display(file)} says version {definition.version}, its folder {file.parent.name}: rename one of the two."
        )
    return definition


def _chain(version: str, known: Mapping[str, Definition], forecast: Path) -> list[Definition]:
    chain: list[Definition] = []
    current: str | None = version
    while current is not None:
        file = display(forecast / "releases" / (chain[-1].version if chain else version) / "release.yaml")
        if current not in known:
            raise ToolError(f"{file}: after: {current} is no release; there are: {', '.join(known)}.")
        if current in [one.version for one in chain]:
            raise ToolError(f"{file}: after: {current} makes a circle; name the release that this one builds on.")
        chain.append(known[current])
        current = known[current].after
    return chain[::-1]


def _base(forecast: Path) -> dict[PurePosixPath, Path]:
    found = ((PurePosixPath(path.relative_to(forecast)), path) for path in _walk(forecast))
    files = {name: path for name, path in found if name.parts[0] not in _NOT_SOURCE}
    if not files:
        raise ToolError(f"{display(forecast)} holds no files: is this a whole clone of the repository?")
    return files


def _remove(files: dict[PurePosixPath, Path], definition: Definition, folder: Path) -> None:
    for name in definition.delete:
        if files.pop(PurePosixPath(name), None) is None:
            raise ToolError(
                f"{display(folder / 'release.yaml')}: delete: {name} is not in the tree of "
                f"{definition.after or 'forecast'}; remove the line."
            )


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        # Hidden files are caches of tools, but for the one that belongs to the image.
        hidden = path.name.startswith(".") and path.name != ".dockerignore"
        if hidden or path.name == "__pycache__" or path.name.endswith((".egg-info", ".pyc")):
            continue
        found += _walk(path) if path.is_dir() else [path]
    return found


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
