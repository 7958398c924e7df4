"""What the console counts, for Prometheus. One registry per app, so that tests do not count into each other."""

from prometheus_client import CollectorRegistry, Counter, generate_latest


class Metrics:
    """Counters by outcome: `ok` or the code of the problem."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "keyledger_console_requests",
            "Calls by route and outcome.",
            ["method", "route", "status", "outcome"],
            registry=self._registry,
        )

    def count(self, method: str, route: str, status: int, outcome: str) -> None:
        """One answer was given."""
        self._requests.labels(method, route, str(status), outcome).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
