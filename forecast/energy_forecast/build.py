"""Which release this image is: version, commit and the schema revisions it runs on, as baked in when it was built."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from energy_forecast.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Build:
    """One image's identity. `compatible` are the Alembic revisions its code runs on."""

    version: str
    commit: str
    compatible: tuple[str, ...]


DEVELOPMENT = Build(version="0.0.0-development", commit="unknown", compatible=())


def load_build(path: Path) -> Build:
    """Read the release file. Without one this is a developer's tree; raises `SettingsError` for a malformed one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return DEVELOPMENT
    except (OSError, ValueError) as error:
        raise SettingsError(f"The release file {path} cannot be read: {error}") from error
    try:
        compatible = tuple(str(revision) for revision in document["schema"]["compatible"])
        return Build(version=str(document["version"]), commit=str(document["commit"]), compatible=compatible)
    except (KeyError, TypeError) as error:
        raise SettingsError(
            f"The release file {path} must be like"
            ' {"version": "1.0.0", "commit": "…", "schema": {"compatible": ["0001"]}}; build the image again'
        ) from error
