"""What the command lines of the tools share: errors become text and an exit code, SIGTERM ends work in good order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from release.errors import ReleaseError, UsageError


def run(main: Callable[[], object]) -> None:
    """Run a command line and end the process: 0 done, 1 failed (the reason on standard error), 2 usage."""
    # As an exception it runs the `finally` blocks: half a build is removed, children are ended.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        main()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _terminated(_number: int, _frame: object) -> None:
    sys.exit(128 + signal.SIGTERM)
