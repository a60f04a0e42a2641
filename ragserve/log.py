"""Structured logs on standard error: JSON lines, or readable ones on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec
import structlog

from ragserve.config import LogConfig

REQUEST_ID: ContextVar[str] = ContextVar("request_id")
"""The request on whose behalf something is logged. aiohttp runs each in a context of its own."""
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(config: LogConfig, *, for_a_person: bool = False) -> None:
    """Set up structlog, and route what libraries log to it.

    ``for_a_person`` leaves out what is merely informative, unless details are asked for.
    """
    level = LEVELS[config.level]
    if for_a_person and config.level == "info":
        level = LEVELS["warning"]
    json = config.format == "json" or (config.format == "auto" and not sys.stderr.isatty())
    processors: list[Any] = [
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if json:
        processors += [
            structlog.processors.ExceptionRenderer(
                # Without locals: they hold questions, documents and keys.
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
        factory: Any = structlog.BytesLoggerFactory(sys.stderr.buffer)
    else:
        processors += [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        factory = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_ToStructlog()]
    root.setLevel(max(level, logging.WARNING))
    # It warns, with a traceback, of each connection that a restart of the database costs;
    # store.pool and store.listen say the same in a line.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


def _add_request_id(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    request_id = REQUEST_ID.get(None)
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


_encoder = msgspec.json.Encoder(enc_hook=repr)


def _to_json(event: dict[str, Any], **_: object) -> bytes:
    return _encoder.encode(event)


class _ToStructlog(logging.Handler):
    """Passes what aiohttp, asyncio and others log on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info
        )
