"""HTTP in, pipeline or store, HTTP out: one module a family of routes."""

from ragserve.handlers.routes import ROUTES
from ragserve.handlers.services import REQUEST_ID, SERVICES, Services

__all__ = ["REQUEST_ID", "ROUTES", "SERVICES", "Services"]
