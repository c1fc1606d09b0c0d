"""Runs one step: arguments, environment, signals, the result's ConfigMap, the exit code.

What the step does is its module's: `add_arguments(parser)` and `run(context, arguments) -> data`.

Exit codes: 0 passed; 1 failed, the last line says why; 143 stopped by a signal before there was an answer, which lets
the Job start another pod where 1 ends it.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, Protocol, TextIO, cast

from steps.context import Context, Log, Redactor
from steps.errors import Interrupted, ReleaseError, StepError
from steps.kube import Cluster, client
from steps.records import timestamp
from steps.results import Attempt
from steps.store import ResultStore
from steps.vocabulary import Step, StepStatus

PASSED = 0
FAILED = 1
INTERRUPTED = 128 + signal.SIGTERM

# Kubernetes kills 30 s after SIGTERM; what must be said has to be said before.
_PATIENCE_INTERRUPTED = 15.0
_VARIABLES = (
    "RELEASE_ENVIRONMENT",
    "RELEASE_DEPLOYMENT",
    "RELEASE_VERSION",
    "RECORDS_NAMESPACE",
    "POD_NAMESPACE",
    "POD_NAME",
)


class StepModule(Protocol):
    """What a step's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the step's flags."""

    def run(self, context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
        """Does the step; what it returns is the result's data. Raises StepError when the answer is no."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of ending the process, so that wrong flags are a failed step with a result like any other."""

    def error(self, message: str) -> NoReturn:
        raise StepError(f"{message}\n{self.format_usage().strip()}")


def load(step: Step) -> StepModule:
    """The module of a step; only that one is imported, so a smoke test does not wait for Alembic."""
    return cast(StepModule, importlib.import_module(f"steps.{step.replace('-', '_')}"))


def context_from(step: Step, environment: Mapping[str, str], stream: TextIO | None = None) -> Context:
    """The context from the pod's variables. Raises StepError that lists every one missing or wrong."""
    problems = [f"{name} is not set" for name in _VARIABLES if not environment.get(name)]
    number = environment.get("RELEASE_DEPLOYMENT", "")
    if number and not (number.isdecimal() and int(number) > 0):
        problems.append(f"RELEASE_DEPLOYMENT is {number!r}, expected a whole number from 1")
    if problems:
        raise StepError("the environment of the pod is incomplete: " + "; ".join(problems))
    redactor = Redactor()
    return Context(
        step=step,
        environment=environment["RELEASE_ENVIRONMENT"],
        deployment=int(number),
        version=environment["RELEASE_VERSION"],
        records_namespace=environment["RECORDS_NAMESPACE"],
        namespace=environment["POD_NAMESPACE"],
        pod=environment["POD_NAME"],
        log=Log(str(step), redactor, stream=stream),
        redactor=redactor,
    )


class Runner:
    """One run of a step, from its arguments to its exit code."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._started = timestamp(context.now())

    def run(self, module: StepModule, arguments: Sequence[str]) -> int:
        """Runs the step, writes the result, returns the exit code."""
        context = self.context
        context.checkpoint = self._checkpoint
        data: Mapping[str, Any] = {}
        reason: str | None = None
        try:
            parser = _Parser(prog=f"python -m steps {context.step}", description=module.__doc__)
            module.add_arguments(parser)
            data = module.run(context, parser.parse_args(list(arguments)))
            status = StepStatus.PASSED
        except StepError as error:
            status, reason, data = StepStatus.FAILED, str(error), error.data
        except ReleaseError as error:
            status, reason = StepStatus.FAILED, str(error)
        except KeyboardInterrupt as error:
            status, reason = StepStatus.INTERRUPTED, f"interrupted by {error}" if str(error) else "interrupted"
            data = getattr(error, "data", {})
        except Exception as error:
            # A fault in a step must still leave a result and a reason.
            context.log(traceback.format_exc())
            status, reason = StepStatus.FAILED, f"unexpected {type(error).__name__}: {error}"
        self._write(status, reason, data)
        if status is StepStatus.PASSED:
            context.log("done")
            return PASSED
        # The last line is what the update quotes, so a reason of several lines ends in its first one.
        lines = (reason or "").splitlines()
        if len(lines) > 1:
            context.log("\n".join(lines[1:]))
        context.log(f"{status}: {lines[0] if lines else 'no reason was given'}")
        return INTERRUPTED if status is StepStatus.INTERRUPTED else FAILED

    def _attempt(self, status: StepStatus, reason: str | None, data: Mapping[str, Any]) -> Attempt:
        context = self.context
        last = reason or ("done" if status is StepStatus.PASSED else "")
        closing = f"{timestamp(context.now())[11:19]} {context.step} {status}: {last}\n"
        return Attempt(
            step=str(context.step),
            deployment=context.deployment,
            version=context.version,
            attempt_pod=context.pod,
            status=status,
            started=self._started,
            finished=None if status is StepStatus.RUNNING else timestamp(context.now()),
            reason=None if reason is None else context.redactor.text(reason),
            data=context.redactor.value(data),
            log=context.redactor.text(context.log.text + ("" if status is StepStatus.RUNNING else closing)),
        )

    def _write(self, status: StepStatus, reason: str | None, data: Mapping[str, Any]) -> None:
        context = self.context
        try:
            cluster = context.cluster
            if status is StepStatus.INTERRUPTED:
                cluster = Cluster(cluster.api, patience=_PATIENCE_INTERRUPTED)
            self._store(cluster).write(self._attempt(status, reason, data), context.junit)
        except (ReleaseError, KeyboardInterrupt) as error:
            context.log(f"the result could not be written: {error or 'interrupted'}")

    def _checkpoint(self, data: Mapping[str, Any]) -> None:
        context = self.context
        # What a checkpoint saves is less than what waiting for the API would cost: the next one tries again.
        try:
            cluster = Cluster(context.cluster.api, patience=2.0)
            self._store(cluster).write(self._attempt(StepStatus.RUNNING, None, data), None)
        except ReleaseError as error:
            context.log(f"progress could not be saved, going on: {error}")

    def _store(self, cluster: Cluster) -> ResultStore:
        context = self.context
        return ResultStore(cluster, context.records_namespace, context.step, context.deployment)


def stop_on_signals() -> None:
    """Turns the first SIGTERM or SIGINT into Interrupted in the main thread; later ones change nothing any more."""

    def stop(number: int, _: FrameType | None) -> None:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)


def main(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    connect: Callable[[], Cluster] = lambda: Cluster(client()),
    stream: TextIO | None = None,
) -> int:
    """`<step> [--flags]`; returns the exit code."""
    known = ", ".join(Step)
    log = Log("steps", Redactor(), stream=stream)
    try:
        if not arguments or arguments[0] not in list(Step):
            got = f", got {arguments[0]!r}" if arguments else ""
            raise StepError(f"the first argument must be one of: {known}{got}")
        step = Step(arguments[0])
        context = context_from(step, environment, stream)
        context.connect_cluster = connect
    except StepError as error:
        log(f"{StepStatus.FAILED}: {error}")
        return FAILED
    with suppress(ValueError):  # signals belong to the main thread, tests may run in another
        stop_on_signals()
    return Runner(context).run(load(step), arguments[1:])
