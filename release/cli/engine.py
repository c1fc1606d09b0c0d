"""The engine of one stack, through the Automation API: `pulumi` as a child that is interrupted once and in good order.

What is deployed belongs to the program; what is shown to `release.cli.progress`; what an error means to
`release.cli.up`. Secrets are never asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml
from pulumi import automation
from pulumi.automation.errors import create_command_error

from release.cli.target import Target
from release.errors import ReleaseError
from tools import paths

OnEvent = Callable[[automation.EngineEvent], None]


class InterruptibleCommand(automation.PulumiCommand):
    """Runs `pulumi` in a session of its own, so that Ctrl-C reaches it by `interrupt` only.

    From the terminal it would arrive there directly, and a second one within the same update kills instead of ending.
    """

    def __init__(self) -> None:
        try:
            super().__init__()
        except FileNotFoundError as error:
            raise ReleaseError("there is no `pulumi` on PATH; run this in `make shell`, or `make up` first") from error
        except (automation.InvalidVersionError, subprocess.CalledProcessError) as error:
            raise ReleaseError(f"this `pulumi` cannot be used: {error}") from error
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._interrupted = False
        self._code = 0

    @property
    def killed_by(self) -> str | None:
        """The signal that ended the last command, None when it ended by itself."""
        return signal.Signals(-self._code).name if self._code < 0 else None

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def interrupt(self) -> bool:
        """Ask the running command to end, the first time only; False when it was asked before."""
        with self._lock:
            if self._interrupted:
                return False
            self._interrupted = True
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            return True

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> automation.CommandResult:
        """Run `pulumi` with `args` and return what it wrote; raises CommandError or one of its kinds."""
        env = {**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        with self._lock:
            if self._interrupted:
                raise create_command_error(automation.CommandResult(stdout="", stderr="interrupted", code=1))
            process = subprocess.Popen(
                [self.command, "--non-interactive", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._process = process
        output: list[str] = []
        errors: list[str] = []
        readers = [
            threading.Thread(target=_read, args=(process.stdout, output, on_output)),
            threading.Thread(target=_read, args=(process.stderr, errors, on_error)),
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        self._code = process.wait()
        result = automation.CommandResult(stdout="\n".join(output), stderr="\n".join(errors), code=self._code)
        if result.code != 0:
            raise create_command_error(result)
        return result


def _read(stream: IO[str], lines: list[str], callback: Callable[[str], Any] | None) -> None:
    with stream:
        for line in stream:
            lines.append(line.rstrip())
            if callback is not None:
                callback(lines[-1])


class Engine:
    """One stack of the project with the configuration file that it uses. Raises CommandError of the Automation API."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.command = InterruptibleCommand()
        self._workspace = automation.LocalWorkspace(work_dir=str(paths.ROOT), pulumi_command=self.command)

    @property
    def backend(self) -> str:
        """The URL of the backend with the state."""
        return os.environ.get("PULUMI_BACKEND_URL", "")

    @property
    def project(self) -> str:
        """The project's name."""
        return str(yaml.safe_load((paths.ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["name"])

    def select(self, *, create: bool) -> automation.Stack | None:
        """The stack; when there is none it is created, or None is returned."""
        name = self.target.environment
        try:
            return automation.Stack.select(name, self._workspace)
        except automation.StackNotFoundError:
            if not create:
                return None
        self._create(name)
        return automation.Stack.select(name, self._workspace)

    def set_folder(self, folder: str) -> bool:
        """Write release:folder into the stack's configuration file; False when it says so already."""
        if self.target.value("release:folder") == folder:
            return False
        words = ["config", "set", "release:folder", folder, "--stack", self.target.environment]
        self._run([*words, "--config-file", str(self.target.config_file)])
        return True

    def up(self, stack: automation.Stack, on_event: OnEvent) -> automation.UpResult:
        """Deploy; the events come in threads of their own."""
        return stack.up(
            on_event=on_event,
            color="never",
            show_secrets=False,
            suppress_outputs=True,
            suppress_progress=True,
            config_file=str(self.target.config_file),
        )

    def preview(self, stack: automation.Stack, folder: str, on_event: OnEvent) -> automation.PreviewResult:
        """Show what deploying the release in `folder` would do; the stack's configuration file stays as it is."""
        with self._configuration_with(folder) as file:
            return stack.preview(on_event=on_event, color="never", suppress_progress=True, config_file=str(file))

    def adopted(self, stack: automation.Stack) -> list[str]:
        """Names whose creation is noted as interrupted in the state although they are there by now; [] usually.

        A killed update leaves such notes; the next one adopts the resource, but the note stays with its warning.
        """
        deployment = stack.export_stack().deployment or {}
        there = {resource["urn"] for resource in deployment.get("resources") or []}
        pending = [item["resource"]["urn"] for item in deployment.get("pending_operations") or []]
        return sorted({urn for urn in pending if urn in there})

    def forget_interrupted(self, stack: automation.Stack, urns: list[str]) -> None:
        """Have the engine look at just these resources and drop its notes on them."""
        stack.refresh(clear_pending_creates=True, target=urns, show_secrets=False, color="never")

    def output(self, name: str) -> object:
        """One output of the stack as the state has it, None when there is none. Secrets stay hidden."""
        try:
            result = self._run(["stack", "output", "--json", "--stack", self.target.environment])
        except automation.StackNotFoundError:
            return None
        outputs: dict[str, object] = json.loads(result.stdout)
        return outputs.get(name)

    def _run(self, words: list[str]) -> automation.CommandResult:
        return self.command.run(words, str(paths.ROOT), {})

    def _create(self, name: str) -> None:
        # `pulumi stack init` knows no --config-file: it writes the salt into the file beside Pulumi.yaml, which may be
        # a tracked one. In a folder of its own it may; whoever encrypts a secret writes a salt where it belongs.
        with tempfile.TemporaryDirectory(prefix="release-init-") as folder:
            shutil.copyfile(paths.ROOT / "Pulumi.yaml", Path(folder) / "Pulumi.yaml")
            if "encryptionsalt" in self.target.config_file.read_text(encoding="utf-8"):
                shutil.copyfile(self.target.config_file, Path(folder) / f"Pulumi.{name}.yaml")
            self.command.run(["stack", "init", name, "--no-select"], folder, {"PULUMI_OPTION_CONFIG_FILE": ""})

    @contextmanager
    def _configuration_with(self, folder: str) -> Iterator[Path]:
        if self.target.value("release:folder") == folder:
            yield self.target.config_file
            return
        with tempfile.TemporaryDirectory(prefix="release-preview-") as place:
            copy = Path(place) / self.target.config_file.name
            document = yaml.safe_load(self.target.config_file.read_text(encoding="utf-8")) or {}
            document["config"] = {**(document.get("config") or {}), "release:folder": folder}
            copy.touch(mode=0o600)
            copy.write_text(yaml.safe_dump(document), encoding="utf-8")
            yield copy
