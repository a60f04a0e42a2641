"""Where the time of a request goes, as spans, for operators who have asked for them.

A worker has no tracer unless ``tracing.enabled`` says so: then a span is one object that does
nothing, and no library is loaded. ``otel`` has the tracer that OpenTelemetry's collectors hear.

The current span follows the task: what a flight computes belongs to the request that started it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from ragserve.schema import Usage

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]
Kind = Literal["internal", "client"]


class Span(Protocol):
    """Something that took time."""

    def note(self, attributes: Attributes) -> None:
        """Add what became known meanwhile."""


class Tracer(Protocol):
    """Makes spans; one that an exception leaves is marked as failed."""

    def span(self, name: str, kind: Kind, attributes: Attributes) -> AbstractContextManager[Span]:
        """Begin a child of the current span, which is current itself within the context."""

    def fail(self, error: Exception) -> None:
        """Mark the current span as failed."""

    def lines(self) -> str:
        """Return the header lines that make another server's spans children of the current one."""


class _NoSpan:
    __slots__ = ()

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, attributes: Attributes) -> None:
        pass


_NONE = _NoSpan()
_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Have this process's spans made by ``tracer`` from now on, None: by nobody."""
    global _tracer
    _tracer = tracer


def span(name: str) -> AbstractContextManager[Span]:
    """Begin a stage of a request."""
    return _NONE if _tracer is None else _tracer.span(name, "internal", {})


def model_span(
    operation: Literal["chat", "embeddings", "rerank"], model: str
) -> AbstractContextManager[Span]:
    """Begin asking a model elsewhere, all attempts included (OpenTelemetry's GenAI conventions).

    ``usage`` gives what to note in the end.
    """
    if _tracer is None:
        return _NONE
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai",  # whose protocol it speaks
        "gen_ai.request.model": model,
    }
    return _tracer.span(f"{operation} {model}", "client", attributes)


def http_span(method: str, host: str, port: int, url: str) -> AbstractContextManager[Span]:
    """Begin one HTTP call."""
    if _tracer is None:
        return _NONE
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "server.address": host,
        "server.port": port,
        "url.full": url,
    }
    return _tracer.span(method, "client", attributes)


def note_failure(error: Exception) -> None:
    """Mark the current span as failed by what its code has dealt with."""
    if _tracer is not None:
        _tracer.fail(error)


def header_lines() -> str:
    """Return ``traceparent`` and what belongs to it, each line ended, for a call to be made."""
    return "" if _tracer is None else _tracer.lines()


def usage(tokens: Usage, model: str | None) -> Attributes:
    """Return what an answer took, and the name that the model has given itself."""
    found: dict[str, str | int] = {
        "gen_ai.usage.input_tokens": tokens.prompt_tokens,
        "gen_ai.usage.output_tokens": tokens.completion_tokens,
    }
    if model:
        found["gen_ai.response.model"] = model
    return found
