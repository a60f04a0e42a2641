"""All metrics of ragserve, in one place, so that names, units and labels keep one convention."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.registry import Collector

# A second series for every first one, and no sum over processes of it means anything.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Batch(Protocol):
    """Counts that a hot path keeps aside."""

    def fold(self) -> None:
        """Move them into their metrics."""


class _KeptAside(Collector):
    """Folds all batches before anything is read: a registry asks in the order of registration."""

    def __init__(self) -> None:
        self._batches: WeakSet[Batch] = WeakSet()

    def add(self, batch: Batch) -> None:
        """Fold this one, too, while it lives."""
        self._batches.add(batch)

    def collect(self) -> Iterable[Metric]:
        for batch in self._batches:
            batch.fold()
        return ()


KEPT_ASIDE = _KeptAside()
REGISTRY.register(KEPT_ASIDE)


class Count:
    """What a counter is to count, as a plain number until somebody reads it.

    ``Counter.inc`` takes a lock, which is too much for every refusal.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._more = 0
        KEPT_ASIDE.add(self)

    def inc(self) -> None:
        """Count one."""
        self._more += 1

    def fold(self) -> None:
        """Move what was counted into the counter."""
        self._counter.inc(self._more)
        self._more = 0


NOTED = 1024
"""So many observations are counted together: that takes a tenth of a millisecond."""


class Observations:
    """What a histogram without labels is to observe, as plain numbers until somebody reads it.

    ``Histogram.observe`` takes two locks, which is too much for every token.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = histogram._upper_bounds
        self._amounts: list[float] = []
        KEPT_ASIDE.add(self)

    def observe(self, amount: float) -> None:
        """Take note of one."""
        self._amounts.append(amount)
        if len(self._amounts) >= NOTED:
            self.fold()

    def fold(self) -> None:
        """Move what was noted into the histogram."""
        amounts = sorted(self._amounts)
        self._amounts.clear()
        below = 0
        for bound, bucket in zip(self._bounds, self._histogram._buckets, strict=True):
            first, below = below, bisect_right(amounts, bound, below)
            if below > first:
                bucket.inc(below - first)
        self._histogram._sum.inc(sum(amounts))


_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

HTTP_REQUESTS = Counter(
    "ragserve_http_requests_total", "Requests answered.", ["route", "method", "status"]
)
HTTP_SECONDS = Histogram(
    "ragserve_http_request_seconds",
    "Time from the request's head to the end of its answer.",
    ["route"],
    buckets=_LATENCY,
)
HTTP_IN_FLIGHT = Gauge("ragserve_http_requests_in_flight", "Requests being answered now.")
HTTP_EXPRESS = Counter(
    "ragserve_http_express_total", "Requests that the express lane answered, of all answered."
)

STAGE_SECONDS = Histogram(
    "ragserve_stage_seconds",
    "Time of one stage of a question: rewrite, embed, retrieve, rerank or generate.",
    ["stage"],
    buckets=_LATENCY,
)
AUTH_FAILURES = Counter(
    "ragserve_auth_failures_total", "Requests refused for their key, by reason.", ["reason"]
)
RATE_LIMITED = Counter(
    "ragserve_rate_limited_total", "Requests refused for a rate limit, by its class.", ["class"]
)
rate_limited = functools.cache(lambda name: Count(RATE_LIMITED.labels(name)))
"""Counts those of a class."""
ADMISSION_REFUSED = Counter(
    "ragserve_admission_refused_total",
    "Requests refused at the entrance, by the gate that is too busy and why: queue or deadline.",
    ["gate", "reason"],
)
admission_refused = functools.cache(
    lambda gate, reason: Count(ADMISSION_REFUSED.labels(gate, reason))
)
"""Counts those of a gate and reason."""
GATE_LIMIT = Gauge("ragserve_gate_limit", "Requests that may be in a stage at once.", ["gate"])
GATE_USED = Gauge("ragserve_gate_used", "Requests in a stage now.", ["gate"])
GATE_WAITING = Gauge("ragserve_gate_waiting", "Requests waiting for a stage.", ["gate"])
ANSWERS = Counter("ragserve_answers_total", "Answers by how they came about.", ["kind"])
DEGRADED = Counter("ragserve_degraded_total", "Answers given without a dependency.", ["dependency"])
EMBEDDING_CACHE = Counter(
    "ragserve_embedding_cache_total",
    "Texts looked up in the cache of vectors: hit, shared (found in Redis) or miss.",
    ["result"],
)
CACHE_LOOKUPS = Counter(
    "ragserve_cache_lookups_total",
    "Answers looked up, by tier (memory, redis, semantic) and result (hit, stale, miss).",
    ["tier", "result"],
)
CACHE_BYTES = Gauge("ragserve_cache_bytes", "Memory that answers take in this process.", ["tier"])
CACHE_REFRESHES = Counter(
    "ragserve_cache_refreshes_total",
    "Kept answers computed again before or after their end, by result (done, failed).",
    ["result"],
)
FLIGHTS = Counter(
    "ragserve_flights_total", "Questions that started a computation or joined one.", ["result"]
)
STREAMS_OPEN = Gauge("ragserve_streams_open", "Answers being streamed now.")
STREAMS = Counter(
    "ragserve_streams_total", "Streams by how they ended: finished, failed or left.", ["result"]
)
REPLICA_READS = Counter(
    "ragserve_replica_reads_total",
    "Searches offered to the database's replica: used, behind (or nothing found), failed.",
    ["result"],
)
CLIENTS_DROPPED = Counter(
    "ragserve_clients_dropped_total",
    "Refused: connections (too many of an address), head, body (slow), write (an answer not read),"
    " malformed, long (what is no request, or has too long a head).",
    ["reason"],
)
STREAMS_CUT_OFF = Counter(
    "ragserve_streams_cut_off_total", "Streams ended because their reader did not read.", ["reason"]
)
FIRST_TEXT_SECONDS = Histogram(
    "ragserve_first_text_seconds",
    "Time from a streaming request to the first words of its answer.",
    buckets=_LATENCY,
)
TEXT_GAP_SECONDS = Observations(
    Histogram(
        "ragserve_text_gap_seconds",
        "Time between two pieces of a language model's answer, as they arrive.",
        buckets=_LATENCY,
    )
)
UPSTREAM_ERRORS = Counter(
    "ragserve_upstream_errors_total",
    "Calls of models elsewhere that failed, by what was called and how it failed.",
    ["upstream", "kind"],
)
UPSTREAM_SECONDS = Histogram(
    "ragserve_upstream_seconds",
    "Time of one call of a model elsewhere to the end of its reply, or of the call.",
    ["upstream"],
    buckets=_LATENCY,
)
UPSTREAM_OPEN = Gauge(
    "ragserve_upstream_open",
    "1 while a model's server is left alone after failures (its breaker is open), 0 otherwise.",
    ["upstream", "server", "model"],
)
UPSTREAM_HEDGES = Counter(
    "ragserve_upstream_hedges_total",
    "Second attempts beside a slow one, by which of the two answered: won (the second) or lost.",
    ["result"],
)
LLM_TOKENS = Counter("ragserve_llm_tokens_total", "Tokens of the language model.", ["kind"])

INGEST_DOCUMENTS = Counter(
    "ragserve_ingest_documents_total", "Documents that left the queue.", ["result"]
)
INGEST_CHUNKS = Counter("ragserve_ingest_chunks_total", "Chunks stored.")
INGEST_STAGE_SECONDS = Histogram(
    "ragserve_ingest_stage_seconds",
    "Time of one stage of a document: read, embed or store.",
    ["stage"],
    buckets=_LATENCY,
)
INGEST_JOBS = Gauge(
    "ragserve_ingest_jobs", "Documents that are queued, running or have failed.", ["state"]
)
INGEST_OVERDUE = Gauge(
    "ragserve_ingest_overdue_seconds",
    "How long the first of the documents in the queue could have been begun with.",
    ["queue"],
)
INDEX_COMMITS = Counter("ragserve_index_commits_total", "Commits of the search index.")
KEY_EXPIRY = Gauge(
    "ragserve_key_expiry_timestamp_seconds",
    "When the keys end that end next and have no successor of their name, in Unix time.",
    ["key"],
)
DEPENDENCY_UP = Gauge(
    "ragserve_dependency_up",
    "1 while the process reaches the database, and Redis if it is configured; 0 if not.",
    ["dependency"],
)
DATABASE_CONNECTIONS = Gauge(
    "ragserve_database_connections", "Connections of the pool, busy or idle.", ["state"]
)
DATABASE_CONNECTIONS_LIMIT = Gauge(
    "ragserve_database_connections_limit", "Connections that the pool may have.", ["pool"]
)

# One line a process of the host, see host.overview.
WORKER_UP = Gauge("ragserve_worker_up", "1 if the process answers its siblings, 0 if not.")
WORKER_STARTED = Gauge(
    "ragserve_worker_start_time_seconds", "When the process started, in Unix time."
)
WORKER_RSS = Gauge("ragserve_worker_resident_memory_bytes", "Resident memory of the process.")
WORKER_CONNECTIONS = Gauge("ragserve_worker_connections", "Open connections of clients.")
WORKER_LAG = Gauge(
    "ragserve_worker_event_loop_lag_seconds",
    "The worst lag of the process's event loop in the last half to whole minute.",
)
DATA_FREE = Gauge(
    "ragserve_data_free_bytes", "Free space where the data directory is.", ["filesystem"]
)
DATA_SIZE = Gauge(
    "ragserve_data_size_bytes", "All space where the data directory is.", ["filesystem"]
)
BUILD = Gauge("ragserve_build_info", "1; the labels say which version runs.", ["version"])
PROCESS_STARTS = Counter(
    "ragserve_process_starts_total", "Processes that began to serve.", ["process"]
)
PROCESS_STOPS = Counter(
    "ragserve_process_stops_total",
    "Processes that ended in order; what started and is neither here nor there has died.",
    ["process"],
)
LOOP_LAG = Histogram(
    "ragserve_event_loop_lag_seconds",
    "How late the event loop is, measured ten times a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SCRAPE_SECONDS = Histogram(
    "ragserve_scrape_seconds",
    "Time to gather the metrics of the host.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
