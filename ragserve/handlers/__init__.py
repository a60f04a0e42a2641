"""HTTP in, pipeline or store, HTTP out: one module a family of routes."""

from ragserve.handlers.routes import ROUTES
from ragserve.handlers.services import (
    DECISION,
    MAY_SPEND,
    PRESENCE,
    PRINCIPAL,
    REQUEST_ID,
    SERVICES,
    SPEND,
    UNTIL,
    Services,
)

__all__ = [
    "DECISION",
    "MAY_SPEND",
    "PRESENCE",
    "PRINCIPAL",
    "REQUEST_ID",
    "ROUTES",
    "SERVICES",
    "SPEND",
    "UNTIL",
    "Services",
]
