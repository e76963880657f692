"""/metrics: the hub in numbers, in the text format of Prometheus.

Owns the names of the metrics.  Nothing is counted here: each scrape reads what the census, the
live streams and ingest know, so there is no state to go stale.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from hub.web.census import Counts
from hub.web.parts import Parts, parts_of
from hub.web.wiring import CENSUS, STREAMS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Scrape:
    """What one scrape shows."""

    def __init__(self, parts: Parts, counts: Counts, streams: int) -> None:
        self._parts = parts
        self._counts = counts
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """All metrics of the hub."""
        yield InfoMetricFamily(
            "lichen_hub", "This hub", {"version": self._parts.version, "id": self._parts.id}
        )
        fleet = GaugeMetricFamily("lichen_boards", "Boards by state", labels=["state"])
        for state in ("fine", "attention", "silent"):
            fleet.add_metric([state], getattr(self._counts, state))
        yield fleet
        yield self._problems()
        yield GaugeMetricFamily("lichen_live_streams", "Open live streams", self._streams)
        yield GaugeMetricFamily("lichen_store_bytes", "Size of the database", self._parts.store.size_bytes())
        yield from self._ingest()

    def _problems(self) -> Metric:
        found: Counter[tuple[str, str, str]] = Counter()
        for board in self._parts.latest.boards.values():
            found.update(("board", each.code, each.severity) for each in board.problems)
        found.update(("hub", each.code, each.severity) for each in self._parts.latest.problems)
        labels = ["of", "code", "severity"]
        family = GaugeMetricFamily("lichen_problems", "Problems there are now", labels=labels)
        for key, amount in found.items():
            family.add_metric(key, amount)
        return family

    def _ingest(self) -> Iterator[Metric]:
        counters = self._parts.counters()
        for name, help, label, amounts in (
            ("messages", "Messages from boards that were committed", "leaf", counters.messages),
            ("refused", "Messages from boards that were dropped", "reason", counters.refused),
        ):
            family = CounterMetricFamily(f"lichen_{name}", help, labels=[label])
            for key, amount in amounts.items():
                family.add_metric([key], amount)
            yield family
        totals: tuple[tuple[str, str, float], ...] = (
            ("readings", "Readings stored", counters.readings),
            ("duplicate_batches", "Batches that brought nothing new", counters.duplicates),
            ("stalled_batches", "Batches that began behind a hole", counters.stalled),
            ("lost_readings", "Readings in gaps", counters.lost),
            ("commits", "Commits of ingest", counters.commits),
            ("commit_seconds", "Time that they took", counters.commit_seconds),
        )
        for name, help, total in totals:
            yield CounterMetricFamily(f"lichen_{name}", help, total)
        yield GaugeMetricFamily("lichen_messages_waiting", "Messages not yet committed", counters.waiting)


async def serve(request: web.Request) -> web.Response:
    """Answer a scrape."""
    counts = (await request.config_dict[CENSUS].count()).counts
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(parts_of(request), counts, request.config_dict[STREAMS].open))
    ProcessCollector(registry=registry)
    response = web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE})
    response.enable_compression()
    return response
