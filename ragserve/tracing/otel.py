"""OpenTelemetry's tracer: spans go to a collector by OTLP/HTTP, as the ``OTEL_*`` variables say.

Endpoint, headers, timeouts, sampler, batches and the service's name are the SDK's to read from the
environment. A thread of the SDK's exports; a collector that is away costs its spans and nothing
else. Questions, passages and answers are never part of a span.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ragserve import __version__
from ragserve.tracing import Attributes, Kind

FLUSH_S = 2.0
"""A worker that stops waits so long for the collector to take its last spans."""
_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
# Baggage is left out: what callers say among themselves is nothing for a model's provider.
_propagator = TraceContextTextMapPropagator()


class OtelSpan:
    """A span of OpenTelemetry's."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, attributes: Attributes) -> None:
        """Add what became known meanwhile; an ``error.type`` marks the span as failed."""
        self._span.set_attributes(attributes)
        if "error.type" in attributes:
            self._span.set_status(StatusCode.ERROR)


class OtelTracer:
    """Makes the spans of one process."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("ragserve", __version__)

    @contextmanager
    def span(self, name: str, kind: Kind, attributes: Attributes) -> Iterator[OtelSpan]:
        """Begin a child of the current span."""
        span = self._tracer.start_span(name, kind=_KINDS[kind], attributes=attributes)
        with _current(span) as begun:
            yield begun

    @contextmanager
    def serving(
        self, name: str, headers: Mapping[str, str], attributes: Attributes
    ) -> Iterator[OtelSpan]:
        """Begin a request's span, a child of the caller's if its ``traceparent`` can be read."""
        parent = _propagator.extract(headers)
        span = self._tracer.start_span(
            name, context=parent, kind=SpanKind.SERVER, attributes=attributes
        )
        with _current(span) as begun:
            yield begun

    def served(
        self, name: str, traceparent: str | None, attributes: Attributes, seconds: float
    ) -> None:
        """Tell of a request that has just been answered, after ``seconds``."""
        headers = {} if traceparent is None else {"traceparent": traceparent}
        end = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=_propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=end - int(seconds * 1e9),
        )
        if "error.type" in attributes:
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def fail(self, error: Exception) -> None:
        """Mark the current span as failed."""
        _fail(trace.get_current_span(), error)

    def lines(self) -> str:
        """Return the header lines that make another server's spans children of the current one."""
        headers: dict[str, str] = {}
        _propagator.inject(headers)
        return "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def close(self) -> None:
        """Give the collector what it has not got yet, if it takes that at once."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(done.set)

        # A daemon: nothing waits for a collector that hangs.
        threading.Thread(target=flush, name="last spans", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_S)
        except TimeoutError:
            return


def open_tracer(instance: str) -> OtelTracer:
    """Return the tracer of a process, which is the service's ``instance``."""
    provider = TracerProvider(resource=describe(instance), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelTracer(provider)


def describe(instance: str) -> Resource:
    """Return what all spans of a process say of it; the environment has the last word."""
    ours = Resource.create({
        "service.name": "ragserve",
        "service.version": __version__,
        "service.instance.id": instance,
    })  # fmt: skip
    return ours.merge(OTELResourceDetector().detect())


@contextmanager
def _current(span: trace.Span) -> Iterator[OtelSpan]:
    token = current.attach(trace.set_span_in_context(span))
    try:
        yield OtelSpan(span)
    except BaseException as error:
        _fail(span, error)
        raise
    finally:
        current.detach(token)
        span.end()


def _fail(span: trace.Span, error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        # Somebody left: that is no failure, but the span has no other end either.
        span.set_attribute("error.type", "cancelled")
        return
    span.set_attribute("error.type", getattr(error, "kind", type(error).__name__))
    span.set_status(Status(StatusCode.ERROR, str(error)))
