"""The numbers that Prometheus scrapes. When they move is decided where it happens."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from energy_forecast.build import Build

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One process's metrics in a registry of their own. `synthetic` is "1" for requests of a test client, else "0"."""

    def __init__(self, build: Build, accuracy: float) -> None:
        """`accuracy` (1 - MAPE) is the model's on held-out history; it stands until live scores replace it."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests", "Requests answered", ("method", "route", "code", "synthetic"), registry=self.registry
        )
        self.latency = Histogram(
            "http_request_duration_seconds",
            "Time from the request's first byte to the response's last",
            ("method", "route", "synthetic"),
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self.accuracy = Gauge("model_accuracy", "1 - MAPE of the model", registry=self.registry)
        self.scored = Gauge(
            "model_accuracy_points", "Live scores behind model_accuracy; 0: held-out history", registry=self.registry
        )
        self.forecasts = Counter("forecasts_made", "Forecasts made", ("basis",), registry=self.registry)
        self.rounds = Counter("worker_rounds", "The worker's rounds", ("outcome",), registry=self.registry)
        self.pool_in_use = Gauge("database_pool_in_use", "Connections given out by the pool", registry=self.registry)
        self.pool_size = Gauge("database_pool_size", "Connections in the pool", registry=self.registry)
        self.draining = Gauge("draining", "1 from the signal to stop until the end", registry=self.registry)
        identity = Gauge("build_info", "Always 1", ("version", "commit"), registry=self.registry)
        identity.labels(build.version, build.commit).set(1)
        self.accuracy.set(accuracy)

    def score(self, accuracy: float, points: int) -> None:
        """Replace the accuracy by that of `points` live scores; none leaves the last value."""
        if points:
            self.accuracy.set(accuracy)
            self.scored.set(points)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
