"""What happens at once when a resource of the release fails: the step's own last words, and a record that says so.

Leaves to others: finding the words (`release.failures`), automatic rollback (the command line).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pulumi

from release.errors import ReleaseError
from release.failures import Failure

CANCELLED = "was cancelled"


def attach(why: Callable[[str], Failure | None], close: Callable[[str], object]) -> None:
    """Asks `why` (by the resource's name) and gives the reason to `close`, when a resource fails.

    An update that the user interrupts is no failure: its Jobs go on, its record stays open, the next one adopts both.
    """
    closed = threading.Event()

    def on_error(args: pulumi.ErrorHookArgs) -> bool:
        error = args.errors[0] if args.errors else f"{args.failed_operation} failed"
        if CANCELLED in error:
            return False
        failure = why(args.name)
        if failure is not None:
            pulumi.log.error(failure.text())
        if not closed.is_set():
            closed.set()
            try:
                close(failure.sentence if failure else f"{args.name}: {_last_line(error)}")
            except ReleaseError as problem:
                pulumi.log.warn(f"the record stays open, the next update closes it: {problem}")
        return False

    hook = pulumi.ErrorHook("record-the-failure", on_error)

    def transform(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        if not args.custom:
            return None
        binding = pulumi.ResourceHookBinding(on_error=[hook])
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(hooks=binding))
        return pulumi.ResourceTransformResult(args.props, opts)

    # Hooks of a component do not reach its children; a transform of the stack reaches every resource.
    pulumi.runtime.register_resource_transform(transform)


def _last_line(text: str) -> str:
    """The engine's errors begin with a count and end with the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text
