"""The images of the program and of the platform: built, pushed, and given back by digest.

`ensure_program_images()` and `build_forecast(...)` are the interface. What was pushed before from the same inputs, and
is still in the registry, costs one request. Which files make a release is left to `tools.assemble`, the registry on the
embedded node to `tools.cluster`.
"""

from __future__ import annotations

from pathlib import Path

from tools.images import provide
from tools.images.recipe import Recipe
from tools.paths import ROOT


def ensure_program_images() -> dict[str, str]:
    """The program's own images, `steps` and `postgres`, each as `registry/name@sha256:…`.

    Raises ToolError when one cannot be built or pushed.
    """
    recipes = (
        Recipe(name="steps", context=ROOT / "steps"),
        Recipe(name="postgres", context=ROOT / "tools" / "postgres"),
    )
    return {recipe.name: provide.ensure(recipe) for recipe in recipes}


def build_forecast(source: Path, version: str, commit: str) -> str:
    """The platform's image from an assembled source tree, as `registry/forecast@sha256:…`.

    `source` holds Dockerfile, requirements.txt, release.json and the package; `version` and `commit` (40 hex digits)
    become the image's labels. Raises ToolError when it cannot be built or pushed.
    """
    labels = {"org.opencontainers.image.version": version, "org.opencontainers.image.revision": commit}
    return provide.ensure(Recipe(name="forecast", context=source, labels=labels))
