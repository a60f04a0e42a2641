"""HTTP in, pipeline or store, HTTP out: one module a family of routes."""

from ragserve.handlers.routes import ROUTES
from ragserve.handlers.services import SERVICES, Services

__all__ = ["ROUTES", "SERVICES", "Services"]
