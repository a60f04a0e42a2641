"""What can go wrong with a server that answers for us."""

from __future__ import annotations

from typing import Literal

import msgspec

from ragserve.errors import UpstreamFailed

Kind = Literal[
    "connect", "timeout", "closed", "throttled", "server", "refused", "garbage", "size", "open",
    "outrun",
]  # fmt: skip


class Refusal(msgspec.Struct, frozen=True):
    """A server's own words for why not, without our key in them."""

    status: int
    body: bytes
    content_type: str
    retry_after: str | None


class CallFailed(UpstreamFailed):
    """A call failed; ``kind`` says how, ``refusal`` what the server said if it said anything."""

    def __init__(
        self,
        message: str,
        kind: Kind,
        *,
        retry_after_s: float | None = None,
        refusal: Refusal | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.kind: Kind = kind
        self.refusal = refusal

    @property
    def may_pass(self) -> bool:
        """Return whether the same call may work a moment later."""
        return self.kind in ("connect", "timeout", "closed", "throttled", "server")


class ClosedEarly(Exception):
    """A connection that had been idle was closed before any byte of a reply (RFC 9112, 9.3.1)."""
