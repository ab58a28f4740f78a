"""What Prometheus may know: counts and times. No label ever has a text of a request."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0, 5.0, 30.0)
_PASSES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "diffgemma_requests", "Requests by API and status", ["api", "status"], registry=registry
        )
        self.refused = Counter(
            "diffgemma_refused", "Requests refused unread, by status", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "diffgemma_request_seconds",
            "From a request to its answer",
            ["api"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.passes = Histogram(
            "diffgemma_passes", "Forward passes of a run", buckets=_PASSES, registry=registry
        )
        self.shared = Counter(
            "diffgemma_shared", "Requests that shared another one's run", registry=registry
        )
        self.cancelled = Counter(
            "diffgemma_cancelled", "Requests whose client went away", registry=registry
        )
        self.empty = Counter("diffgemma_empty", "Answers with nothing to show", registry=registry)
        self.running = Gauge("diffgemma_running", "Runs under way", registry=registry)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
