"""The release: load the configuration, decide which deployment this is, build its graph, export what it gives.

`pulumi up` runs this; everything that can be wrong with the inputs is said here, before any resource exists.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pulumi
from pulumi.runtime import config as engine

from components import program
from release.errors import ReleaseError

# The language host's own code for "already reported": the engine adds no traceback of its own.
ALREADY_REPORTED = 32


def main() -> None:
    """Builds the stack that is selected."""
    # Raw keys and which of them are secret: pulumi.Config shows one key after the other, and a problem at a time.
    values, secrets = engine.CONFIG.get(), engine._SECRET_KEYS.get()
    try:
        flow = program.build(Path(__file__).parent, pulumi.get_stack(), values, secrets)
    except ReleaseError as error:
        pulumi.log.error(str(error))
        sys.exit(ALREADY_REPORTED)
    pulumi.export("version", flow.version)
    pulumi.export("deployment", flow.deployment)
    pulumi.export("url", flow.url)
    pulumi.export("head", flow.head)


main()
