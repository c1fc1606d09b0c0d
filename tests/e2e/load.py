"""A constant, bounded load on one address of the project's own network, counted where the user sits: at the client."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

LONGEST_SECONDS = 300.0


@dataclass(kw_only=True)
class Load:
    """`clients` keep-alive connections, each sending `rate` GET requests per second, for as long as the block lasts.

    A request counts as failed when it is answered with a status of 500 or more, not answered within 5 s, or cut off.
    A connection that the server announced to close is opened anew, as any client does.
    """

    url: str
    clients: int = 4
    rate: float = 25.0
    path: str = "/v1/forecast?horizon_hours=1"
    sent: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ends = time.monotonic() + LONGEST_SECONDS
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _client(self) -> None:
        host = urlsplit(self.url).netloc
        connection = http.client.HTTPConnection(host, timeout=5)
        while not self._stop.wait(1 / self.rate) and time.monotonic() < self._ends:
            outcome = self._request(connection)
            with self._lock:
                self.sent += 1
                if outcome is not None:
                    self.failures.append(f"{time.strftime('%H:%M:%S')} {outcome}")
        connection.close()

    def _request(self, connection: http.client.HTTPConnection) -> str | None:
        """None when it was answered well, otherwise what happened."""
        try:
            connection.request("GET", self.path)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"{type(error).__name__}: {error}"
        return None if response.status < 500 else f"HTTP {response.status}"
