"""Builds one `GoBinary` into a folder named by everything it is made from. Which ones there are is left to `specs`.

A build happens in a folder of its own beside the result and becomes the result by one rename, so what lies at the
result's place is always whole. The tracked sources are copied first: nothing is ever written beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tools import lock, paths
from tools.errors import ToolError
from tools.progress import Phase, phase
from tools.toolchain.golang import Go, find_go
from tools.toolchain.specs import GoBinary

TAIL = 15


def key(binary: GoBinary) -> str:
    """12 hex digits over the module's go.mod, go.sum, *.go, the flags and the kind of machine."""
    digest = hashlib.sha256()
    for file in _sources(binary):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode())
        digest.update(content)
    flags = asdict(binary)
    # What does not change the executables must not build them again.
    for name in ("folder", "title", "cold"):
        del flags[name]
    digest.update(json.dumps([flags, sys.platform, platform.machine()], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


def location(binary: GoBinary) -> Path:
    """The folder of the executables, whether they have been built or not."""
    return paths.TOOLCHAIN / f"{binary.name}-{key(binary)}" / "bin"


def is_built(binary: GoBinary) -> bool:
    """Whether the executables of exactly these sources and flags are there."""
    return location(binary).is_dir()


def build(binary: GoBinary) -> Path:
    """The folder of the executables, built now unless they are there already.

    Two calls at once build only once: the second waits for the first. Raises ToolError when Go is missing or a build
    fails; the message carries the build's last lines and its log's path.
    """
    result = location(binary)
    if result.is_dir():
        return result
    with lock.hold(paths.TOOLCHAIN / f"{binary.name}.lock", wait=True):
        if result.is_dir():
            return result
        # Left by a build that was killed: only the lock's holder makes these.
        for stale in paths.TOOLCHAIN.glob(f".{binary.name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        go = find_go()
        work = Path(tempfile.mkdtemp(dir=paths.TOOLCHAIN, prefix=f".{binary.name}."))
        try:
            with phase(f"build {binary.title} {binary.version}", estimate=binary.cold) as shown:
                _Build(binary, go=go, work=work, log=paths.LOGS / f"build-{binary.name}.log", shown=shown).run()
            (work / "result").rename(result.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return result


def _sources(binary: GoBinary) -> list[Path]:
    sources = [binary.folder / "go.mod", binary.folder / "go.sum", *sorted(binary.folder.glob("*.go"))]
    for file in sources[:2]:
        if not file.is_file():
            raise ToolError(
                f"{file} is missing: it pins what {binary.title} is built from. Restore it: git checkout {file}"
            )
    return sources


class _Build:
    """One build under way in `work`: sources/ and result/bin/ are made inside it."""

    def __init__(self, binary: GoBinary, *, go: Go, work: Path, log: Path, shown: Phase) -> None:
        self._binary = binary
        self._go = go
        self._sources = work / "sources"
        self._bin = work / "result/bin"
        self._log = log
        self._shown = shown
        self._compiled = 0

    def run(self) -> None:
        self._sources.mkdir()
        self._bin.mkdir(parents=True)
        for file in _sources(self._binary):
            shutil.copyfile(file, self._sources / file.name)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w", encoding="utf-8") as log:
            log.write(f"{self._go.executable} ({self._go.version})\n")
            self._copy(log, into_sources=True)
            for package in self._binary.packages:
                flags = ["-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", package.ldflags]
                self._run(log, ["build", *flags, "-o", str(self._bin / package.file), package.path])
            self._copy(log, into_sources=False)
        for name in self._binary.links:
            (self._bin / name).symlink_to(self._binary.packages[0].file)
        _flush(self._bin)

    def _copy(self, log: IO[str], *, into_sources: bool) -> None:
        wanted = [copy for copy in self._binary.copies if copy.into_sources is into_sources]
        for module in sorted({copy.module for copy in wanted}):
            # `download` checks the module against go.sum; the folder is empty in `go list -m` before it was downloaded.
            folder = Path(json.loads(self._run(log, ["mod", "download", "-json", module]))["Dir"])
            for copy in wanted:
                if copy.module != module:
                    continue
                target = (self._sources if into_sources else self._bin) / copy.file.name
                shutil.copyfile(folder / copy.file, target)
                target.chmod(0o644 if into_sources else 0o755)

    def _run(self, log: IO[str], arguments: Sequence[str]) -> str:
        command = [str(self._go.executable), *arguments]
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        environ = {**os.environ, "GOWORK": "off"}
        if self._binary.cgo is not None:
            environ["CGO_ENABLED"] = str(int(self._binary.cgo))
        # A file, not a second pipe: two pipes read one after the other can block the writer.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                command,
                cwd=self._sources,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            with _ended(process):
                said = [line for line in self._lines(process, log) if not _is_progress(line)]
                code = process.wait()
            output.seek(0)
            answer = output.read()
        if code != 0:
            tail = "\n".join(f"  {line}" for line in (said + answer.splitlines())[-TAIL:])
            raise ToolError(
                f"building {self._binary.title} {self._binary.version} failed (exit code {code}); its last lines:\n"
                f"{tail}\nThe whole log: {self._log}. When a download failed, check the network and `go env GOPROXY`, "
                "then run the same command again: what is built and downloaded already is kept."
            )
        return answer

    def _lines(self, process: subprocess.Popen[str], log: IO[str]) -> Iterator[str]:
        assert process.stderr is not None  # noqa: S101 - opened as a pipe above
        for raw in process.stderr:
            log.write(raw)
            line = raw.rstrip()
            if line.startswith("go: downloading"):
                self._shown.detail(line.removeprefix("go: "))
            elif _is_progress(line):
                self._compiled += 1
                self._shown.detail(f"{self._compiled} packages compiled, {line}")
            yield line


def _is_progress(line: str) -> bool:
    """Whether a line of `go build -v` is a package's name or a download, and no message."""
    return line.startswith("go: downloading") or (bool(line) and " " not in line and ":" not in line)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process with all its children when the block is left by an exception."""
    try:
        yield
    except BaseException:
        # Asked first, Go removes its own temporary folders.
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
                break
        raise


def _flush(folder: Path) -> None:
    """Bring the files to the disk, so that after a power cut the rename cannot stand for empty ones."""
    for file in folder.iterdir():
        if not file.is_symlink():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
