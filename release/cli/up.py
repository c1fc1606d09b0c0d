"""`release up`: one update of the stack, watched, and what came of it in words.

It deploys nothing itself: everything that `pulumi up` would not do alone is said when it is done (configuration
written, a dead process's lock removed, the record closed).
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer
from pulumi import automation
from rich.console import Console

from release import cluster, failures, status
from release.cli import locks
from release.cli.engine import Engine
from release.cli.progress import Progress
from release.cli.target import Target, find, find_release, next_version
from release.errors import ReleaseError
from release.manifest import Release
from steps.vocabulary import record_name, records_namespace
from tools import paths
from tools.progress import duration

_POLL_SECONDS = 0.2


def up(environment: str, version: str) -> int:
    """Bring `environment` to the assembled release `version`; returns 0 when it is there, 1 when it is not.

    Raises UsageError for an unknown environment or version, ReleaseError for what stops it before the engine starts.
    """
    target = find(environment)
    release = find_release(version)
    engine = Engine(target)
    _make_way(engine)
    stack = _selected(engine, create=True)
    folder = _folder(release)
    if engine.set_folder(folder):
        tracked = " (tracked by git: keep the change or take it back)" if target.tracked else ""
        _say(f"{paths.display(target.config_file)}: release:folder is now {folder}{tracked}")

    progress = Progress(Console(stderr=True, highlight=False), planning=False)
    _say(f"{environment}: releasing {version}; Ctrl-C stops the update, not what runs in the cluster")
    error = _watched(engine, progress, lambda: engine.up(stack, progress.on_event))
    took = duration(progress.elapsed)
    if error is None:
        _clear_notes(engine, stack, progress)
        _succeeded(target, release, progress, took)
        return 0
    _failed(engine, version, progress, error)
    return 1


def preview(environment: str, version: str) -> int:
    """Show what `up` would do; returns 0, or 1 when that cannot be said. The stack's configuration stays as it is."""
    target = find(environment)
    release = find_release(version)
    engine = Engine(target)
    stack = _selected(engine, create=False)
    progress = Progress(Console(stderr=True, highlight=False), planning=True)
    _say(f"{environment}: what releasing {version} would do")
    error = _watched(engine, progress, lambda: engine.preview(stack, _folder(release), progress.on_event))
    if error is not None:
        _say_engine_errors(progress, error)
        return 1
    counts = ", ".join(f"{count} {op}" for op, count in sorted(progress.changes.items())) or "nothing"
    typer.echo(f"preview of {version} in {environment} ({duration(progress.elapsed)}): {counts}")
    return 0


def _selected(engine: Engine, *, create: bool) -> automation.Stack:
    name = engine.target.environment
    try:
        stack = engine.select(create=create)
    except automation.CommandError as error:
        raise ReleaseError(f"the stack {name} cannot be used:\n{_stderr(error)}") from error
    if stack is None:
        raise ReleaseError(f"there is no stack {name} to preview yet; `pulumi stack init {name}`, or `release up`")
    return stack


def _make_way(engine: Engine) -> None:
    """Refuse to start beside another update; remove the locks of processes that are known to be dead."""
    held = locks.find(engine.backend, engine.project, engine.target.environment)
    dead = locks.clear_dead(held)
    for lock in dead:
        _say(f"removed the lock of {lock.text()}: that process is dead; its update goes on here")
    locks.refuse_held([lock for lock in held if lock not in dead], engine.target.environment)


def _watched(engine: Engine, progress: Progress, work: Callable[[], object]) -> automation.CommandError | None:
    """Run `work` in a thread, with its progress shown and signals passed on; the engine's error when it failed."""
    done = threading.Event()
    raised: list[Exception] = []

    def body() -> None:
        try:
            # The Automation API warns about an event that it does not know by printing it, secrets included.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work()
        except Exception as error:
            # Raised again below, in the thread that somebody waits for.
            raised.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=body, name="update")
    with progress.shown(), _signals() as received:
        thread.start()
        seen = 0
        while not done.wait(_POLL_SECONDS):
            if len(received) > seen:
                seen = len(received)
                first = engine.command.interrupt()
                progress.say(
                    "stopping the update, which takes some seconds; Jobs in the cluster go on"
                    if first
                    else "still stopping; the engine was told once, a second time would make it lose track"
                )
            progress.tick()
        thread.join()
    for error in raised:
        if not isinstance(error, automation.CommandError):
            raise error
    return next((error for error in raised if isinstance(error, automation.CommandError)), None)


@contextmanager
def _signals() -> Iterator[Sequence[int]]:
    """Collect the signals that ask to end while the block runs."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        # Nothing more: whatever takes a lock could wait for the code that this interrupts.
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear_notes(engine: Engine, stack: automation.Stack, progress: Progress) -> None:
    if not progress.pending:
        return
    try:
        adopted = engine.adopted(stack)
        if adopted:
            engine.forget_interrupted(stack, adopted)
    except automation.CommandError as error:
        # The release itself has succeeded; the note only repeats its warning.
        name = engine.target.environment
        _say(
            "warning: the note of the killed update stays; "
            f"`pulumi refresh -s {name} --clear-pending-creates` removes it"
        )
        _say(_stderr(error))


def _succeeded(target: Target, release: Release, progress: Progress, took: str) -> None:
    environment, version = target.environment, release.manifest.version
    # The head of the records is read at every update, which changes nothing.
    changed = any(count for op, count in progress.changes.items() if op not in {"same", "read"})
    outcome = f"released in {took}" if changed else "nothing to change"
    lines = [f"{environment} runs {version}: {outcome}"]
    try:
        now = status.status(cluster.connect(target.value("kubernetes:context")), environment)
    except ReleaseError as error:
        lines.append(f"  how it stands cannot be read: {error}")
    else:
        if now.healthy is not None:
            record = record_name(now.healthy.deployment)
            lines.append(
                f"  deployment  {now.healthy.deployment} (record {record} in {records_namespace(environment)})"
            )
        lines.append(f"  pods        {now.ready} of {now.desired} ready")
        lines.append(f"  URL         {now.url or now.hint or 'none'}")
    following = next_version(version)
    lines.append("next")
    lines.append(f"  release status {environment}            what runs, and where")
    lines.append(f"  release history {environment} --verify  every deployment, checked")
    lines.append(f"  pulumi stack history -s {environment}   the same as Pulumi saw it")
    if following is not None:
        lines.append(f"  make up ENV={environment} VERSION={following}   the next release")
    typer.echo("\n".join(lines))


def _failed(engine: Engine, version: str, progress: Progress, error: automation.CommandError) -> None:
    environment = engine.target.environment
    again = f"release up {environment} {version}"
    if engine.command.interrupted:
        _say(
            f"stopped after {duration(progress.elapsed)}. The Jobs in the cluster go on and the record stays open: "
            f"`release status {environment}` shows them, `{again}` goes on with them."
        )
        return
    if isinstance(error, automation.ConcurrentUpdateError):
        held = locks.find(engine.backend, engine.project, environment)
        locks.refuse_held([lock for lock in held if not lock.is_dead()], environment)
        raise ReleaseError(f"{environment} is being updated by somebody else:\n{_stderr(error)}")
    if engine.command.killed_by is not None:
        _say(f"the engine was killed ({engine.command.killed_by}); `{again}` goes on where it stopped")
        return
    _say_engine_errors(progress, error)
    _say_last_words(engine, progress)
    _say(
        f"{environment}: {version} failed after {duration(progress.elapsed)}. Mend the cause, then `{again}`; "
        f"`release status {environment}` shows what runs meanwhile."
    )


def _say_engine_errors(progress: Progress, error: automation.CommandError) -> None:
    if progress.trouble is not None:
        _say(f"warning: not every event of the engine could be shown ({type(progress.trouble).__name__})")
    # Errors of the program and of resources came as events; what stopped the engine before them did not.
    if not progress.errors:
        _say(_stderr(error))


def _say_last_words(engine: Engine, progress: Progress) -> None:
    """Say what failed in the cluster's own words unless the engine said it already, and close the record as failed.

    An update that failed before it touched a resource (its configuration, say) leaves an open record to be resumed, and
    so does one beside which another update has begun.
    """
    environment, number = engine.target.environment, progress.deployment
    if not progress.failed or number is None:
        return
    said = "\n".join(progress.errors)
    reason = next((line for line in said.splitlines() if line.strip()), f"{progress.failed[0]} failed")
    try:
        client = cluster.connect(engine.target.value("kubernetes:context"))
        found = failures.find(client, environment, number)
        for failure in found:
            if failure.reason not in said:
                _say(failure.text())
        if found:
            reason = found[0].sentence
        others = locks.find(engine.backend, engine.project, environment)
        if not others and failures.close(client, environment, number, reason):
            _say(f"record {number} is closed as failed")
    except ReleaseError as error:
        _say(f"no more can be said about the failure, and record {number} is left to the next update: {error}")


def _stderr(error: automation.CommandError) -> str:
    """What the engine wrote to standard error; its standard output repeats the progress."""
    return str(error).rpartition(" stderr: ")[2].strip() or "the engine gave no reason"


def _folder(release: Release) -> str:
    return os.path.relpath(release.folder, paths.ROOT)


def _say(text: str) -> None:
    typer.echo(text, err=True)
