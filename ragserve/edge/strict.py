"""What aiohttp takes although it may mean two things: refused, and the connection closed.

A proxy in front may have read another host, another length or another path; what it did not mean
must not be answered (RFC 9112, 11.2). What nobody could read at all aiohttp refuses itself.
"""

from __future__ import annotations

from functools import lru_cache

from aiohttp import HttpVersion10, web

from ragserve.edge.express import HOST
from ragserve.errors import MalformedRequest


def check_head(request: web.Request) -> None:
    """Raise ``MalformedRequest`` for what is not plainly one request to one host."""
    headers = request.headers
    host = headers.get("Host")
    if host is None:
        # aiohttp insists on a Host in HTTP/1.1; HTTP/1.0 had none, before that there were no heads.
        if request.version < HttpVersion10:
            raise MalformedRequest("the request has no HTTP version")
    elif not _is_host(host):
        raise MalformedRequest(f"Host {host!r} is no name or address", param="Host")
    length = headers.get("Content-Length", "0")
    if length[0] == "0" and length != "0":
        raise MalformedRequest(f"Content-Length {length} begins with 0", param="Content-Length")
    if "#" in request.raw_path:
        raise MalformedRequest(f"the target {request.raw_path!r} has a fragment")


@lru_cache(1024)
def _is_host(text: str) -> bool:
    return HOST.fullmatch(text.encode(errors="surrogateescape")) is not None
