"""Around every request: its id, its log line, its metrics, the limit of its body, `Connection: close` in a drain."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energy_forecast.drain import Drain
from energy_forecast.logs import REQUEST_ID, log
from energy_forecast.metrics import Metrics

LOGGER = logging.getLogger(__name__)

MOST_BODY_BYTES = 1024 * 1024

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_QUIET = {"/healthz", "/readyz", "/metrics"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Observe:
    """ASGI middleware. An error that nothing below handled is logged with its trace and answered with 500 here."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # An id from outside ends up in logs: only what cannot break them is taken over.
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        began = time.perf_counter()
        code = 0

        async def answer(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                reply = MutableHeaders(scope=message)
                reply["x-request-id"] = request_id
                if self._drain.active:
                    reply["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, _limited(headers, receive), answer)
        except Exception:
            log(LOGGER, logging.ERROR, "request_failed", trace=True, method=scope["method"], path=scope["path"])
            if code:
                raise
            body = json.dumps({"detail": f"internal error; the log has it under request id {request_id}"}).encode()
            kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await answer({"type": "http.response.start", "status": 500, "headers": kind})
            await answer({"type": "http.response.body", "body": body})
        finally:
            self._record(scope, headers, code, time.perf_counter() - began)
            REQUEST_ID.reset(token)

    def _record(self, scope: Scope, headers: Headers, code: int, seconds: float) -> None:
        # Neither a made-up path nor a made-up method may open a new time series.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        synthetic = "1" if headers.get("x-synthetic", "0") not in ("", "0") else "0"
        self._metrics.requests.labels(method, route, str(code), synthetic).inc()
        self._metrics.latency.labels(method, route, synthetic).observe(seconds)
        if route not in _QUIET or (code >= 500 and not self._drain.active):
            level = logging.WARNING if code >= 500 else logging.INFO
            log(
                LOGGER,
                level,
                "request",
                method=method,
                route=route,
                status=code,
                ms=round(seconds * 1000, 1),
                synthetic=synthetic == "1",
            )


def _limited(headers: Headers, receive: Receive) -> Receive:
    taken = 0

    async def take() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        declared = headers.get("content-length", "0")
        if taken > MOST_BODY_BYTES or (declared.isdecimal() and int(declared) > MOST_BODY_BYTES):
            raise HTTPException(413, f"a body may have {MOST_BODY_BYTES} bytes at most; send fewer readings at once")
        return message

    return take
