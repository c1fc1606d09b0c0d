"""The stack configuration for the embedded cluster: a git-ignored copy of the tracked one, with what it needs there.

The tracked `Pulumi.<stack>.yaml` is never written. What the user sets in the copy (`pulumi config set` in `make shell`)
stays; what was never touched there follows the tracked file. Which keys there are is left to `release.settings`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools import paths
from tools.environment import environment
from tools.errors import ToolError

BAKE_SECONDS = 60
PASSWORDS = ("release:ownerPassword", "release:appPassword")

_HEADER = "# Made for the embedded cluster; what you set here with `pulumi config set` in `make shell` stays.\n"


def embedded_config(stack: str, version: str, images: Mapping[str, str]) -> Path:
    """Make or update the copy for `stack` on the embedded cluster, and return its path.

    `version` is the release that it is to deploy, `images` maps `steps` and `postgres` to references by digest. The
    stack is created where it does not exist, and passwords that are missing are made at random and stored encrypted.
    Raises ToolError when a file is no stack configuration or pulumi refuses.
    """
    target = paths.stack_copy(stack)
    written = target.with_name(f".{target.name}.written")
    chosen = {"release:folder": os.path.relpath(paths.RELEASES / version, paths.ROOT), **_image_keys(images)}
    defaults = {
        **plain(_config(_load(paths.stack_file(stack)))),
        "release:serviceType": "NodePort",
        "release:storageClass": "embedded",
        "release:bakeSeconds": BAKE_SECONDS,
    }
    document = _load(target)
    document["config"] = {**merge(_config(document), defaults, _config(_load(written))), **chosen}
    paths.STACKS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.STACKS, prefix=f".{stack}.") as folder:
        # In a folder of its own: `pulumi stack init` writes the salt into the file beside Pulumi.yaml, whatever
        # configuration file it was told to use. It also means that the copy is replaced only once it is complete.
        work = Path(folder)
        shutil.copyfile(paths.ROOT / "Pulumi.yaml", work / "Pulumi.yaml")
        draft = work / target.name
        _save(draft, document)
        pulumi = _Pulumi(work, stack)
        pulumi.create_stack()
        for key in PASSWORDS:
            if key not in document["config"]:
                pulumi.set_secret(key, secrets.token_urlsafe(24))
        _save(work / written.name, {"config": {**defaults, **chosen}})
        (work / written.name).replace(written)
        draft.replace(target)
    return target


def image_commands(stack: str, images: Mapping[str, str]) -> list[str]:
    """The commands that make the configuration in use name these images; none when it does already."""
    chosen = {**os.environ, **environment(stack)}.get("PULUMI_OPTION_CONFIG_FILE")
    config = _config(_load(paths.ROOT / chosen if chosen else paths.stack_file(stack)))
    wanted = _image_keys(images)
    if config.get("data:provider") == "url":
        del wanted["release:databaseImage"]
    return [f"pulumi config set {key} {image} -s {stack}" for key, image in wanted.items() if config.get(key) != image]


def merge(copy: Mapping[str, Any], defaults: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the copy: the user's own values win over `defaults`.

    `written` is what this tool wrote last time. A value of the copy that differs from it is the user's; one that does
    not follows `defaults`, also when the key is no longer there.
    """
    own = {key: value for key, value in copy.items() if key not in written or not _same(value, written[key])}
    return {**defaults, **own}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without its secrets: the tracked file's are encrypted with a key that is not the copy's."""
    return {key: value for key, value in config.items() if not _holds_secret(value)}


def _image_keys(images: Mapping[str, str]) -> dict[str, str]:
    return {"release:stepsImage": images["steps"], "release:databaseImage": images["postgres"]}


def _holds_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return "secure" in value or any(_holds_secret(child) for child in value.values())
    return isinstance(value, Sequence) and not isinstance(value, str) and any(_holds_secret(child) for child in value)


def _same(one: object, other: object) -> bool:
    """Whether two values mean the same: `pulumi config set` turns 60 into "60" and true into "true"."""
    return json.dumps(_text(one), sort_keys=True) == json.dumps(_text(other), sort_keys=True)


def _text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ToolError(f"{file} is no YAML: {error}. Mend it, or remove it and run the same command again.") from error
    if document is None:
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("config") or {}, dict):
        raise ToolError(
            f"{file} is no stack configuration: `config:` must hold keys and values, such as release:folder."
        )
    return document


def _config(document: Mapping[str, Any]) -> dict[str, Any]:
    return dict(document.get("config") or {})


def _save(file: Path, document: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(document), sort_keys=True, allow_unicode=True, width=1000)
    file.write_text(_HEADER + text, encoding="utf-8")


class _Pulumi:
    """Pulumi's command line in a folder that holds Pulumi.yaml and the configuration of `stack`."""

    def __init__(self, folder: Path, stack: str) -> None:
        self._folder = folder
        self._stack = stack
        self._environ = {**os.environ, **environment(None)}
        self._environ.pop("PULUMI_OPTION_CONFIG_FILE", None)

    def create_stack(self) -> None:
        stacks = json.loads(self._run(["stack", "ls", "--json"]))
        if self._stack not in {str(found["name"]).rpartition("/")[2] for found in stacks}:
            self._run(["stack", "init", self._stack, "--no-select"])

    def set_secret(self, key: str, value: str) -> None:
        # By standard input: a process's arguments are there for every user of the machine to read.
        self._run(["config", "set", "--secret", key, "--stack", self._stack], value)

    def _run(self, arguments: Sequence[str], given: str = "") -> str:
        pulumi = shutil.which("pulumi", path=self._environ["PATH"])
        if pulumi is None:
            raise ToolError("There is no pulumi yet. Make it: .venv/bin/python -m tools.toolchain ensure --only pulumi")
        done = subprocess.run(
            [pulumi, *arguments, "--non-interactive", "--color", "never"],
            cwd=self._folder,
            env=self._environ,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ToolError(
                f"`pulumi {' '.join(arguments)}` failed:\n{(done.stderr or done.stdout).strip()}\n"
                f"State: {self._environ.get('PULUMI_BACKEND_URL')}, configuration: {paths.stack_copy(self._stack)}"
            )
        return done.stdout
