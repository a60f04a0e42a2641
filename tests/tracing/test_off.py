"""Without tracing there is nothing of it: no library, no hook, no object made for a span."""

from __future__ import annotations

import subprocess
import sys

from ragserve import tracing


def test_a_span_is_nothing_when_off() -> None:
    """Every place that may begin one gets the same object, made once, which keeps nothing."""
    made = [tracing.span("a"), tracing.model_span("rerank", "m"), tracing.model_span("chat", "m")]
    made.append(tracing.http_span("POST", "h", 80, "http://h/v1"))
    assert {id(one) for one in made} == {id(tracing._NONE)}
    with made[0] as span:
        span.note({"a": 1})
        tracing.note_failure(ValueError())
    assert tracing.header_lines() == ""
    assert not hasattr(span, "__dict__")


def test_nothing_is_loaded_when_off() -> None:
    """Without tracing an application has no hook for it and has not loaded what makes spans."""
    program = (
        "import sys, pathlib\n"
        "from ragserve.config import Config\n"
        "from ragserve.edge.traced import trace\n"
        "from ragserve.worker.app import create_app\n"
        "import ragserve.worker.run\n"
        "app = create_app(Config(), pathlib.Path('/nowhere'), '')\n"
        "assert trace not in app.middlewares\n"
        # redis-py loads a part of its own, for metrics, wherever it finds it installed.
        "ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'ragserve.tracing.otel')\n"
        "print([name for name in sys.modules if name.startswith(ours)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
