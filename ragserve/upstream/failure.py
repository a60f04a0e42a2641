"""What can go wrong with a server that answers for us."""

from __future__ import annotations

from typing import Literal

from ragserve.errors import UpstreamFailed

Kind = Literal[
    "connect", "timeout", "closed", "throttled", "server", "refused", "garbage", "size", "open"
]


class CallFailed(UpstreamFailed):
    """A call failed; ``kind`` says how."""

    def __init__(self, message: str, kind: Kind, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.kind: Kind = kind

    @property
    def may_pass(self) -> bool:
        """Return whether the same call may work a moment later."""
        return self.kind in ("connect", "timeout", "closed", "throttled", "server")


class ClosedEarly(Exception):
    """A connection that had been idle was closed before any byte of a reply (RFC 9112, 9.3.1)."""
