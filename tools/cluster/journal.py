"""What the supervisor leaves for others to read: its state, its progress while somebody listens, and bounded logs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from tools.cluster.instance import Instance

_LOG_BYTES = 32 << 20

log = logging.getLogger("supervisor")


class Journal:
    """Writes for one node; safe from several threads."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._listened = True

    def log_file(self, name: str) -> Path:
        """Where a component's output goes."""
        return self._instance.logs / f"{name}.log"

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace the state file in one step, so that a reader never sees half of it."""
        with self._lock:
            file = self._instance.state_file
            beside = file.with_suffix(".new")
            try:
                beside.write_text(json.dumps(state, indent=1) + "\n")
                beside.rename(file)
            except OSError as error:
                # a full disk must not end the first process, and with it the whole node
                log.error("the state cannot be written: %s", error)

    def tell(self, **event: Any) -> None:
        """One JSON line for whoever started the node; nothing once nobody reads any more."""
        with self._lock:
            if not self._listened:
                return
            try:
                os.write(1, json.dumps(event).encode() + b"\n")
            except OSError:
                self._listened = False

    def trim_logs(self) -> None:
        """Keep every log within 32 MiB and one older part; its writer appends, so cutting it is safe."""
        for file in self._instance.logs.glob("*.log"):
            if file.stat().st_size <= _LOG_BYTES:
                continue
            try:
                shutil.copyfile(file, file.with_suffix(".log.1"))
            except OSError as error:
                log.error("no copy of %s is kept: %s", file, error)
            os.truncate(file, 0)
