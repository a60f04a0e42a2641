"""``/metrics``: whichever worker the kernel chose answers for the whole host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web
from prometheus_async.aio import time
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder

from ragserve.handlers.services import PRESENCE
from ragserve.host.overview import host_metrics
from ragserve.host.totals import Families, to_metrics
from ragserve.metrics import SCRAPE_SECONDS


class _Collected:
    """A registry, as far as the writer of prometheus_client needs one."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return to_metrics(self._families)


async def metrics(request: web.Request) -> web.Response:
    """Answer in the format that the scraper asks for."""
    families = await time(SCRAPE_SECONDS, host_metrics(request.app[PRESENCE]))
    write, content_type = choose_encoder(request.headers.get("Accept", ""))
    body = await asyncio.to_thread(write, _Collected(families))
    return web.Response(body=body, headers={"Content-Type": content_type})
