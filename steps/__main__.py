"""`python -m steps <step> [--flags]`: see `steps.runner`."""

from __future__ import annotations

import os
import sys

from steps.runner import main

sys.exit(main(sys.argv[1:], os.environ))
