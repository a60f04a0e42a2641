"""``ingest --url``: files to a running server, a few batches at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

import aiohttp
import msgspec

from ragserve.cli.files import Found, batches
from ragserve.cli.progress import Progress
from ragserve.cli.query import error_message, unreachable
from ragserve.cli.remote import Remote
from ragserve.errors import RagserveError
from ragserve.schema import Accepted, DocumentResponse, UploadResponse
from ragserve.store.jobs import NewDocument

PARALLEL = 2
WAIT_S = 30.0
LOOK_S = 0.5
TIMEOUT_S = 120.0


async def upload(remote: Remote, collection: str, found: Found, progress: Progress) -> None:
    """Upload the files and wait until each is searchable or failed."""
    try:
        await _upload(remote, collection, found, progress)
    except ExceptionGroup as errors:
        error = errors.exceptions[0]
        if isinstance(error, (aiohttp.ClientError, TimeoutError)):
            raise unreachable(remote, error) from error
        raise error from None


async def _upload(remote: Remote, collection: str, found: Found, progress: Progress) -> None:
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    slots = asyncio.Semaphore(PARALLEL)
    async with (
        aiohttp.ClientSession(remote.base, timeout=timeout, headers=remote.headers) as session,
        asyncio.TaskGroup() as group,
    ):
        for batch in batches(found):
            await slots.acquire()
            task = group.create_task(_upload_batch(session, collection, batch, progress))
            task.add_done_callback(lambda _: slots.release())


async def _upload_batch(
    session: aiohttp.ClientSession,
    collection: str,
    batch: Sequence[NewDocument],
    progress: Progress,
) -> None:
    form = aiohttp.MultipartWriter("form-data")
    form.append(collection, {"Content-Disposition": 'form-data; name="collection"'})
    for document in batch:
        # A name is an id: as RFC 8187 writes it, it arrives whole, with its first slash.
        name = f"filename*=utf-8''{quote(document.name, safe='')}"
        form.append(
            document.content,
            {
                "Content-Disposition": f'form-data; name="file"; {name}',
                "Content-Type": "application/octet-stream",
            },
        )
    body = await _request(session, "POST", "v1/documents", params={"wait": str(WAIT_S)}, data=form)
    for accepted in msgspec.json.decode(body, type=UploadResponse).documents:
        await _finish(session, collection, accepted, progress)


async def _finish(
    session: aiohttp.ClientSession, collection: str, accepted: Accepted, progress: Progress
) -> None:
    state, error = accepted.state, accepted.error
    while state in ("queued", "running"):
        await asyncio.sleep(LOOK_S)
        path = f"v1/documents/{quote(accepted.id, safe='')}"
        body = await _request(session, "GET", path, params={"collection": collection})
        document = msgspec.json.decode(body, type=DocumentResponse)
        state, error = document.state, document.error
    if state == "failed":
        progress.failed_one(accepted.id, str(error))
    elif state == "unchanged":
        progress.unchanged_one()
    else:
        progress.stored_one()


async def _request(
    session: aiohttp.ClientSession, method: str, path: str, **options: object
) -> bytes:
    async with session.request(method, path, **options) as response:  # type: ignore[arg-type]
        body = await response.read()
    if response.status >= 300:
        raise RagserveError(error_message(str(response.url), response.status, body))
    return body
