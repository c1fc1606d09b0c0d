"""Gives an image by digest, with as little work as possible: known and still there, else built and pushed.

The choice of the builder is here; how each of them builds is in `embedded` and `docker`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tools import lock
from tools.errors import ToolError
from tools.images import docker, embedded
from tools.images.recipe import Recipe
from tools.images.registry import Destination, destination
from tools.paths import IMAGES
from tools.progress import phase


def ensure(recipe: Recipe) -> str:
    """The image of `recipe` as `registry/name@sha256:…`, built and pushed when the registry has it not.

    Two processes at once wait for each other. Raises ToolError when it cannot be built or pushed.
    """
    place = destination(recipe.name)
    found = _find(recipe, place)
    if found is None:
        with lock.hold(IMAGES / "lock", wait=True):
            found = _find(recipe, place) or _build_and_push(recipe, place)
    return place.reference(found)


def _find(recipe: Recipe, place: Destination) -> str | None:
    note = _note(recipe, place)
    try:
        digest = str(json.loads(note.read_text())["digest"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if place.embedded:
        return digest if place.holds(digest) else None
    return digest if (docker if docker.answers() else embedded).has(place, digest) else None


def _build_and_push(recipe: Recipe, place: Destination) -> str:
    with phase(f"Image {recipe.name}") as current:
        builder = docker if not place.embedded and docker.answers() else embedded
        image = builder.build(recipe, current)
        try:
            digest: str = builder.push(image, place, _tag(recipe), current)
        except ToolError as error:
            raise ToolError(
                f"The image {recipe.name} cannot be pushed to {place.push_name}. {place.advice} {error}"
            ) from error
        current.note(digest)
    note = _note(recipe, place)
    note.parent.mkdir(parents=True, exist_ok=True)
    partial = note.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"reference": place.reference(digest), "digest": digest}))
    partial.replace(note)
    return digest


def _note(recipe: Recipe, place: Destination) -> Path:
    builder = embedded.identity() if place.embedded or not docker.answers() else docker.identity()
    return IMAGES / "pushed" / recipe.name / f"{recipe.digest(builder, place.repository)[:16]}.json"


def _tag(recipe: Recipe) -> str:
    version = recipe.labels.get("org.opencontainers.image.version")
    short = recipe.digest()[:12]
    return f"{version}-{short}" if version else short
