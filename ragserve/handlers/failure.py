"""What a client is told of a failure, in a response or in the midst of a stream."""

from __future__ import annotations

import structlog

from ragserve.errors import Overloaded, RagserveError
from ragserve.schema import ErrorBody, ErrorResponse

log = structlog.get_logger(__name__)


def describe(error: Exception, request_id: str) -> ErrorResponse:
    """Return the error's envelope, and log what is this server's fault.

    Call it while the error is being handled: what nobody foresaw is logged with its traceback and
    shown without details.
    """
    if isinstance(error, RagserveError):
        # Refusals come in thousands, when there is the least time to write; they are counted.
        if error.status >= 500 and not isinstance(error, Overloaded):
            log.warning("request_failed", code=error.code, error=error.message)
        body = ErrorBody(error.message, error.type, error.param, error.code, request_id)
    else:
        log.exception("request_crashed")
        body = ErrorBody(
            "internal error; the log has it under this request id",
            "server_error",
            None,
            "internal",
            request_id,
        )
    return ErrorResponse(body)
