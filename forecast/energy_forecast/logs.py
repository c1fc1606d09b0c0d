"""Structured logs: one JSON object a line on standard output, with the request's id, never with a secret.

What is worth a line is decided where it happens.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

# The last line of defence: drivers quote connection strings in their errors.
_SECRET = re.compile(r"(://[^\s:/@]*:)[^\s/]*@|(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)


class JsonLines(logging.Formatter):
    """Renders a record as one line: time, level, event, logger, request_id, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object without a line break."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


def redact(text: str) -> str:
    """`text` without the passwords of connection strings."""
    return _SECRET.sub(lambda match: f"{match[1]}***@" if match[1] else f"{match[2]}***", text)


def log(logger: logging.Logger, level: int, event: str, *, trace: bool = False, **fields: Any) -> None:
    """Log `event` with its own fields; `trace` adds the current exception's."""
    logger.log(level, event, extra={"fields": fields}, exc_info=trace)


def set_up() -> None:
    """Send every log of this process to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
