"""Progress with elapsed time on standard error; standard output stays free for results.

On a terminal every phase that is under way is a live line with a spinner; without one (a log, a pipe, CI) there is a
line when a phase starts, one every half minute, and one when it ends. Works without rich too, because the virtual
environment is made before rich is there. What the phases are is left to the callers.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

HEARTBEAT_SECONDS = 30.0

_lock = threading.RLock()
_live: Progress | None = None
_depth = 0


def duration(seconds: float) -> str:
    """Seconds as a person says them: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def say(text: str) -> None:
    """One line for the reader, above the live lines where there are any."""
    with _lock:
        if _live is not None:
            _live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


class Phase:
    """One piece of work under way; `detail` says where it stands, `note` what to add to its last line."""

    def __init__(self, title: str, estimate: float | None, indent: str = "") -> None:
        self.title = title
        self.indent = indent
        self.estimate = estimate
        self.started = time.monotonic()
        self._detail = ""
        self._note = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the phase started."""
        return time.monotonic() - self.started

    def detail(self, text: str) -> None:
        """Where the work stands now; shown live, or with the next half-minute line."""
        self._detail = text

    def note(self, text: str) -> None:
        """What came of it, for the phase's last line."""
        self._note = text

    def standing(self) -> str:
        """The phase in one line while it is under way."""
        about = f" of about {duration(self.estimate)}" if self.estimate else ""
        detail = f": {self._detail}" if self._detail else ""
        return f"{self.indent}{self.title} … {duration(self.elapsed)}{about}{detail}"

    def ending(self, failed: bool) -> str:
        """The phase in one line once it is over."""
        note = f": {self._note}" if self._note else ""
        return f"{self.indent}{'✗' if failed else '✓'} {self.title} ({duration(self.elapsed)}){note}"


@contextmanager
def phase(title: str, *, estimate: float | None = None) -> Iterator[Phase]:
    """Show a piece of work with its elapsed time; `estimate` is what it usually takes, in seconds.

    Phases may lie inside each other. An exception ends the phase as failed and passes through.
    """
    global _depth
    with _lock:
        indent = "  " * _depth
        _depth += 1
    current = Phase(title, estimate, indent)
    stop = threading.Event()
    live = _on_terminal()
    if not live:
        about = f" (about {duration(estimate)})" if estimate else ""
        say(f"{indent}{title} …{about}")
    shown = threading.Thread(target=_show_live if live else _show_lines, args=(current, stop), daemon=True)
    shown.start()
    failed = True
    try:
        yield current
        failed = False
    finally:
        stop.set()
        shown.join()
        with _lock:
            _depth -= 1
        say(current.ending(failed))


def _show_lines(current: Phase, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        say(current.standing())


def _show_live(current: Phase, stop: threading.Event) -> None:
    global _live
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    with _lock:
        if _live is None:
            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
            _live = Progress(*columns, console=Console(stderr=True), transient=True)
            _live.start()
        live = _live
        task = live.add_task(current.standing(), total=None)
    try:
        while not stop.wait(0.25):
            live.update(task, description=current.standing())
    finally:
        with _lock:
            live.remove_task(task)
            if not live.tasks:
                live.stop()
                _live = None


def _on_terminal() -> bool:
    if not sys.stderr.isatty():
        return False
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True
