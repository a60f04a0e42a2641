"""HTTP in, pipeline or store, HTTP out: one module a family of routes."""

from ragserve.handlers.routes import ROUTES
from ragserve.handlers.services import (
    DECISION,
    PRESENCE,
    PRINCIPAL,
    REQUEST_ID,
    SERVICES,
    Services,
)

__all__ = ["DECISION", "PRESENCE", "PRINCIPAL", "REQUEST_ID", "ROUTES", "SERVICES", "Services"]
