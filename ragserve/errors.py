"""Everything that can go wrong and that a person should hear about.

An error carries the HTTP status, the ``type`` and ``code`` of its envelope and, where one request
field is to blame, its name. The message names the thing, the limit and the value. Raise these
anywhere; ``edge.problem`` turns them into responses and ``cli`` into an exit code.
"""

from __future__ import annotations

from typing import ClassVar


class RagserveError(Exception):
    """Base of all errors with a meaning outside the module that raised them."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequest(RagserveError):
    """The request is malformed or asks for something outside a limit."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class MalformedRequest(InvalidRequest):
    """The request may mean two things; where the next one begins is not certain either."""

    code = "malformed_request"


class Unauthorized(RagserveError):
    """No key, or none that is valid."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(RagserveError):
    """The key is valid, but not for this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class TooManyRequests(RagserveError):
    """A limit is reached; the client may try again after ``retry_after_s``."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class NotFound(RagserveError):
    """The named thing does not exist for this tenant."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """Nothing that answers has this name."""

    code = "model_not_found"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class Conflict(RagserveError):
    """The request contradicts what is stored, such as another embedding model."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class TooLarge(RagserveError):
    """The body, a file or a list is over its limit."""

    status = 413
    type = "invalid_request_error"
    code = "too_large"


class UnsupportedFormat(RagserveError):
    """No reader takes this kind of file or body."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_format"


class UnreadableDocument(RagserveError):
    """A file of a known kind cannot be read: broken, encrypted, empty or mislabelled."""

    status = 422
    type = "invalid_request_error"
    code = "unreadable_document"


class Overloaded(RagserveError):
    """A queue is full; the client may try again after ``retry_after_s``."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"


class Unavailable(RagserveError):
    """A dependency does not answer."""

    status = 503
    type = "server_error"
    code = "unavailable"


class UpstreamFailed(RagserveError):
    """A language model or embedder answered with an error or nonsense."""

    status = 502
    type = "upstream_error"
    code = "upstream_failed"


class DeadlineExceeded(RagserveError):
    """The request's time is used up."""

    status = 504
    type = "timeout_error"
    code = "deadline_exceeded"


class NotCached(RagserveError):
    """The client wanted a kept answer or none (RFC 9111, 5.2.1.7)."""

    status = 504
    type = "invalid_request_error"
    code = "not_cached"


class ConfigurationError(RagserveError):
    """The configuration cannot be used; the process does not start."""

    code = "configuration"


# Exit codes, after sysexits.h; the systemd units rely on them.
EXIT_FAILURE = 1
"""Something went wrong, and the message says what."""
EXIT_CRASH_LOOP = 70
"""A child process died again and again; restarting would not help."""
EXIT_UNAVAILABLE = 75
"""A dependency is missing; trying again later may help."""
EXIT_CONFIGURATION = 78
"""The configuration is wrong; trying again does not help."""


def exit_code(error: RagserveError) -> int:
    """Return the exit code of a command that ends with ``error``."""
    if isinstance(error, ConfigurationError):
        return EXIT_CONFIGURATION
    return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_FAILURE
