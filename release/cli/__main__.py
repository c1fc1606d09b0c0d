"""`python -m release.cli`, the same as the command `release`."""

from release.cli import main

main()
