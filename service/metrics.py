"""Metrics for Prometheus: requests of this process, and what the store says of studies and jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector

from nas.store import Store
from nas.versions import own_version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "nas_http_requests", "Requests by route", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "nas_http_request_seconds", "Time to the end of the answer", ("route",), buckets=_BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        build = Gauge("nas_build", "Version of the program", ("version",), registry=self.registry)
        build.labels(own_version()).set(1)
        ProcessCollector(registry=self.registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count the end of a request."""
        self._requests.labels(method, route, str(status)).inc()
        if not route.endswith("/events"):  # which lasts as long as its client listens
            self._seconds.labels(route).observe(seconds)

    def text(self, store: Store, listeners: int) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        collector = _StoreCollector(store, listeners)
        found: bytes = generate_latest(self.registry)
        own = CollectorRegistry()
        own.register(collector)
        return found + generate_latest(own)


class _StoreCollector:
    """What the store says: numbers of studies, trials and jobs by state."""

    def __init__(self, store: Store, listeners: int) -> None:
        self._store = store
        self._listeners = listeners

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        tallies = self._store.tallies()
        for name, text, labels, counts in (
            ("nas_studies", "Studies by state", ("state",), tallies.studies),
            ("nas_trials", "Trials by state", ("state",), tallies.trials),
            ("nas_trainings", "Trainings by state", ("state",), self._store.training_tallies()),
            ("nas_jobs", "Jobs by kind and state", ("kind", "state"), tallies.jobs),
        ):
            family = GaugeMetricFamily(name, text, labels=labels)
            for key, count in sorted(counts.items()):
                family.add_metric(list(key), count)
            yield family
        yield GaugeMetricFamily("nas_event_listeners", "Clients that listen to live events", value=self._listeners)
