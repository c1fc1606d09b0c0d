"""What happens at once when a resource of the release fails: the step's own last words, and a record that says so.

Leaves to others: finding the words (`release.failures`), automatic rollback (the command line).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pulumi

CANCELLED = "was cancelled"


def attach(explain: Callable[[str], str], close: Callable[[str], object]) -> None:
    """Calls `explain` (resource name → text for the user) and `close` (reason) when a resource fails.

    An update that the user interrupts is no failure: its Jobs go on, its record stays open, the next one adopts both.
    """
    closed = threading.Event()

    def on_error(args: pulumi.ErrorHookArgs) -> bool:
        reason = args.errors[0] if args.errors else f"{args.name}: {args.failed_operation} failed"
        if CANCELLED in reason:
            return False
        words = explain(args.name)
        if words:
            pulumi.log.error(words)
        if not closed.is_set():
            closed.set()
            close(f"{args.name}: {_first_line(words or reason)}")
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


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text
