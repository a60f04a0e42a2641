"""The gates of a worker: one for each stage that more at once would only slow down."""

from __future__ import annotations

from typing import NamedTuple

from ragserve.config import Config
from ragserve.flow.admission import Admission
from ragserve.flow.gate import Gate
from ragserve.flow.gradient import Gradient
from ragserve.metrics import GATE_LIMIT, GATE_USED, GATE_WAITING

LOCAL_AT_ONCE = 24
"""Three batches of the model: one in it, one before it, one being searched. With fewer it computes
half-filled batches; more would only wait for this core, and make all others wait."""
REMOTE_AT_ONCE = 256
"""These wait for another machine's model."""
CHANGING_SHARE = 4
"""One of so many connections, one at least, may change something; the others are for questions."""
CHANGING_WAIT_S = 10.0
"""A change may have to wait so long; whoever makes many of them is in no hurry."""


class Gates(NamedTuple):
    """The stages' gates.

    ``compute`` is everything up to the language model, which shares this process's model and core:
    the question's vector, the search, and sentences picked out where no model writes. ``database``
    is the search within it, ``llm`` an answer being written. ``changes`` are no questions, but
    documents and collections that come and go.
    """

    compute: Gate
    database: Gate
    llm: Gate
    changes: Gate

    def admission(self, *, writes: bool) -> Admission:
        """Return the entrance of questions that pass them, the last one if a model ``writes``."""
        return Admission(self[:3] if writes else self[:2])


def open_gates(config: Config, connections: int) -> Gates:
    """Return the gates of a worker with so many connections to the database."""
    settings = config.admission
    servers = max(1, len(config.llm.servers))

    def gate(
        name: str, maximum: int, burst_s: float, standing_s: float, *, within: bool = False
    ) -> Gate:
        opened = Gate(
            name,
            Gradient(settings.min_permits, max(1, maximum)),
            burst_s=burst_s,
            standing_s=standing_s,
            within=within,
        )
        GATE_LIMIT.labels(name).set_function(lambda: opened.limit.limit)
        GATE_USED.labels(name).set_function(lambda: opened.used)
        GATE_WAITING.labels(name).set_function(lambda: opened.waiting)
        return opened

    changing = max(1, connections // CHANGING_SHARE)
    burst_s, standing_s = settings.burst_s, settings.wait_s
    at_once = REMOTE_AT_ONCE if config.embedding.provider == "openai" else LOCAL_AT_ONCE
    return Gates(
        gate("compute", at_once, burst_s, standing_s),
        # What is left of the connections is for what is no question: changes, keys, health.
        gate("database", connections - changing, burst_s, standing_s, within=True),
        gate("llm", config.llm.connections * servers, settings.llm_wait_s, settings.llm_wait_s),
        gate("changes", changing, CHANGING_WAIT_S, CHANGING_WAIT_S),
    )
