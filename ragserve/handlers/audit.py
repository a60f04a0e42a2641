"""Who did what that matters for security: structured events, with ids and never with a secret."""

from __future__ import annotations

import structlog
from aiohttp import web

from ragserve.handlers.services import PRINCIPAL, REQUEST_ID

audit = structlog.get_logger("ragserve.audit")


def note(event: str, request: web.Request, **more: object) -> None:
    """Log what somebody's request has changed."""
    who = request[PRINCIPAL]
    by = who.id or "anonymous"
    audit.info(event, tenant=who.tenant, by=by, request_id=request[REQUEST_ID], **more)
