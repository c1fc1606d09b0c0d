"""`make up`: from a clone to a released environment in one go, each phase with its time.

Only the order is decided here. The tools are made by `tools.toolchain`, the cluster by `tools.cluster`, images by
`tools.images`, the release folder by `tools.assemble`, the configuration by `tools.stack`; releasing is `release up`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import yaml

from release.errors import UsageError
from release.manifest import parse_version
from tools import command, lock, paths, stack, toolchain
from tools.environment import environment, uses_own_cluster
from tools.errors import ToolError
from tools.progress import duration, phase, say


class Times:
    """How long each part took, in seconds, in the order in which they ran."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._began = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure the block as `name`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - began

    def text(self) -> str:
        """The whole, then the parts."""
        parts = " · ".join(f"{name} {duration(seconds)}" for name, seconds in self._seconds.items())
        return f"{duration(time.monotonic() - self._began)} ({parts})"


def up(target: str, version: str) -> int:
    """Bring `target` (an environment) to `version`; returns the exit code of `release up`.

    Raises UsageError for what cannot be an environment or a version, ToolError when a part before the release fails or
    another process is at it.
    """
    _check(target, version)
    times = Times()
    with lock.hold(paths.UP_LOCK, command=f"make up ENV={target} VERSION={version}"):
        if uses_own_cluster(target):
            _prepare_own(target, version, times)
        else:
            _prepare_embedded(target, version, times)
        with times.part("release"):
            code = _release(target, version)
    if code != 0:
        say(f"make up failed after {times.text()}. Mend the cause above, then run the same command again.")
        return code
    say(f"make up took {times.text()}")
    say(f"  make shell ENV={target}   a shell for plain pulumi: pulumi preview -s {target}, pulumi up -s {target}")
    say("  make down, make clean    stop the cluster and keep its data, or remove everything")
    return code


def _check(target: str, version: str) -> None:
    # The environment names namespaces (`<env>-records` the longest) and files.
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?", target):
        raise UsageError(
            f"{target!r} is no environment; write it like make up ENV=staging (a-z, 0-9 and -, at most 40)"
        )
    try:
        parse_version(version)
    except ValueError as error:
        raise UsageError(f"VERSION: {error}") from error


def _prepare_embedded(target: str, version: str, times: Times) -> None:
    # Imported here, as below: the refusal of a second `make up` needs none of it.
    from tools import assemble, cluster, images
    from tools.images.registry import VARIABLE

    _demand_privilege()
    if os.environ.get(VARIABLE):
        raise ToolError(
            f"{VARIABLE} names a registry that the embedded cluster cannot reach: unset it, or choose another cluster "
            f"by KUBECONFIG or by kubernetes:context in {paths.stack_file(target).name}"
        )
    with times.part("toolchain"), phase("toolchain"):
        toolchain.ensure()
    with times.part("cluster"):
        cluster.up()
    with times.part("images"), phase("the program's own images"):
        program_images = images.ensure_program_images()
    with times.part("assemble"), phase(f"assemble release {version}"):
        assemble.assemble(version)
    with times.part("configuration"), phase("stack configuration") as shown:
        copy = stack.embedded_config(target, version, program_images)
        shown.note(paths.display(copy))
    say(_bake_note(target, yaml.safe_load(copy.read_text(encoding="utf-8"))["config"]))


def _prepare_own(target: str, version: str, times: Times) -> None:
    """Prepare a release to a cluster of the user's own, whose configuration is the user's and is only compared."""
    from tools import assemble, images
    from tools.images.registry import VARIABLE

    say(f"{target} goes to the cluster that KUBECONFIG or kubernetes:context names")
    with times.part("toolchain"), phase("toolchain"):
        toolchain.ensure(toolchain.FOR_RELEASES)
    if not os.environ.get(VARIABLE):
        say(
            f"{VARIABLE} is not set, so no image is built and no release assembled: those of the stack's configuration "
            f"are used. To build them: make up {VARIABLE}=registry.example.com/team …"
        )
        return
    with times.part("images"), phase("the program's own images"):
        program_images = images.ensure_program_images()
    with times.part("assemble"), phase(f"assemble release {version}"):
        assemble.assemble(version)
    commands = stack.image_commands(target, program_images)
    if commands:
        raise ToolError(
            f"{target}'s configuration names other images than this clone's, which are in the registry now. In "
            f"make shell ENV={target}:\n" + "\n".join(f"  {line}" for line in commands)
        )


def _demand_privilege() -> None:
    """Raise ToolError where the embedded cluster could not start: before a toolchain is built for it, not after."""
    from tools.cluster import privilege

    privilege.demand_linux()
    if not privilege.is_root() and shutil.which("sudo") is None:
        raise ToolError(
            f"the embedded cluster needs root, and there is no sudo: run this as root. {privilege.ELSEWHERE}"
        )


def _bake_note(target: str, config: dict[str, Any]) -> str:
    seconds = int(config["release:bakeSeconds"])
    return (
        f"The embedded cluster's bake lasts {duration(seconds)}, whatever the tracked configuration says; "
        f"another time: make shell ENV={target}, then pulumi config set release:bakeSeconds 3600 -s {target}"
    )


def _release(target: str, version: str) -> int:
    """Run `release up` to its end, whatever is sent to this process meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "release.cli", "up", target, version],
        cwd=paths.ROOT,
        env={**os.environ, **environment(target)},
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has sent it to the child as well, which ends the update in good order: seconds, not at once.
            say("interrupted: waiting for the update to end")
        except SystemExit:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


def main(
    target: Annotated[
        str, typer.Option("--environment", help="The environment, which is the stack's name.")
    ] = "staging",
    version: Annotated[str, typer.Option(help="The release's version.")] = "1.0.0",
) -> None:
    """Bring an environment to a release: tools, cluster, images, release folder, configuration, `release up`.

    Example: python -m tools.up --environment staging --version 1.1.0
    """
    raise typer.Exit(up(target, version))


if __name__ == "__main__":
    command.run(lambda: typer.run(main))
