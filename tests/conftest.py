"""Fixtures: a real PostgreSQL for the session, a database of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest import mock

import asyncpg
import hypothesis
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from ragserve.config import ChunkingConfig, Config, IngestConfig, load_config
from ragserve.handlers import SERVICES
from ragserve.ingest import loop
from ragserve.ingest.readers import Readers
from ragserve.ingest.run import ingesting
from ragserve.store.collections import Collection, ensure_collection
from ragserve.store.embedded import EmbeddedPostgres
from ragserve.store.migrate import prepare_database
from ragserve.store.pool import Database
from ragserve.worker.app import create_app

# A busy machine is no failure; a commit is judged by the same examples each time.
hypothesis.settings.register_profile("ragserve", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "ragserve")

TEMPLATE = "template_ragserve"
DOCUMENTS = Path(__file__).parent / "documents"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The DSN of a running PostgreSQL."""
    with own_directory() as directory:
        server = EmbeddedPostgres(directory)
        try:
            yield server.acquire()
        finally:
            server.release()


@contextmanager
def own_directory() -> Iterator[Path]:
    """A short path that a server running as another user may enter.

    pytest makes its own directories private again whenever a session starts.
    """
    with TemporaryDirectory(prefix="ragserve-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory for an embedded PostgreSQL of the test's own."""
    with own_directory() as directory:
        yield directory / "data"


def named(dsn: str, database: str) -> str:
    """Return ``dsn`` with another database name."""
    return dsn.replace("/postgres?", f"/{database}?")


@pytest.fixture
async def empty_dsn(postgres: str) -> AsyncIterator[str]:
    """A database without anything in it."""
    async with _database(postgres, "template1") as dsn:
        yield dsn


@pytest.fixture
async def dsn(postgres: str) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    await _ensure_template(postgres)
    async with _database(postgres, TEMPLATE) as dsn:
        yield dsn


@asynccontextmanager
async def _database(postgres: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _admin(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield named(postgres, name)
    finally:
        await _admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def _ensure_template(postgres: str) -> None:
    exists = await _admin(postgres, f"SELECT FROM pg_database WHERE datname = '{TEMPLATE}'")
    if exists == "SELECT 0":
        # A database is dropped with a checkpoint, and nothing here survives the host anyway.
        await _admin(postgres, "ALTER SYSTEM SET fsync = off")
        await _admin(postgres, "SELECT pg_reload_conf()")
        await _admin(postgres, f"CREATE DATABASE {TEMPLATE}")
        await prepare_database(named(postgres, TEMPLATE), 10.0)


async def _admin(dsn: str, sql: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
def config() -> Config:
    """The defaults, with an embedder that costs nothing."""
    return configured()


def configured(**settings: object) -> Config:
    """Return test defaults with ``section__name`` settings over them."""
    chosen: dict[str, object] = {
        "embedding.provider": "hashing",
        "embedding.window_ms": 0,
        "answer.min_similarity": 0.1,
        "log.access": False,
    }
    chosen.update({name.replace("__", ".", 1): value for name, value in settings.items()})
    return load_config(overrides=chosen)


@pytest.fixture
async def database(dsn: str, config: Config) -> AsyncIterator[Database]:
    """An open pool on the test's database."""
    opened = Database(dsn, config.database, size=4)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def collection(database: Database) -> Collection:
    """A collection named default."""
    return await make_collection(database, "default")


async def make_collection(database: Database, name: str, tenant: str = "default") -> Collection:
    """Return a collection for vectors of the hashing embedder."""
    return await ensure_collection(
        database, tenant, name, embedder="hashing-384", dimensions=384, language="en"
    )


class Api:
    """A client of a running application that speaks JSON."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.client = client

    @property
    def services(self) -> Any:
        """The application's services."""
        return self.client.app[SERVICES]  # type: ignore[union-attr]

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON body of the answer to ``body`` as JSON."""
        options = {} if body is None else {"json": body}
        async with self.client.request(method, path, **options) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        """GET."""
        return await self.call("GET", path)

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        """POST JSON."""
        return await self.call("POST", path, body)

    async def delete(self, path: str) -> tuple[int, Any]:
        """DELETE."""
        return await self.call("DELETE", path)

    async def ingest(self, *documents: dict[str, Any], collection: str = "default") -> None:
        """Upload documents and wait until they are searchable."""
        body = {"collection": collection, "documents": list(documents)}
        status, answer = await self.post("/v1/documents?wait=30", body)
        assert status == 200, answer
        assert {item["state"] for item in answer["documents"]} <= {"ready", "unchanged"}, answer


class KeptReaders(Readers):
    """Reading processes that a later test uses, too: to start one takes longer than most tests.

    One whose work was given up is killed as ever, and started anew by whoever reads next.
    """

    free: ClassVar[dict[bytes, list[KeptReaders]]] = {}

    def __init__(self, config: IngestConfig, chunking: ChunkingConfig) -> None:
        super().__init__(config, chunking)
        self._place = self.free.setdefault(msgspec.json.encode((config, chunking)), [])
        if self._place:
            self._slots = self._place.pop()._slots
            self._idle = asyncio.LifoQueue()  # of this test's loop
            for slot in self._slots:
                self._idle.put_nowait(slot)

    def close(self) -> None:
        """Leave them to another test."""
        self._place.append(self)


@pytest.fixture(scope="session", autouse=True)
def _reading_processes() -> Iterator[None]:
    """End them with the session."""
    yield
    for places in KeptReaders.free.values():
        for readers in places:
            Readers.close(readers)


@asynccontextmanager
async def serving(
    config: Config, data_dir: Path, dsn: str, *, ingest: bool = True
) -> AsyncIterator[Api]:
    """Run the application, and unless told otherwise the ingest process, in this process."""
    async with TestClient(TestServer(create_app(config, data_dir, dsn))) as client:
        client.app[SERVICES].phase = "ready"  # type: ignore[union-attr,index]
        if not ingest:
            yield Api(client)
            return
        with mock.patch.object(loop, "Readers", KeptReaders):
            async with ingesting(config, data_dir, dsn):
                yield Api(client)


@pytest.fixture
async def api(config: Config, tmp_path: Path, dsn: str) -> AsyncIterator[Api]:
    """A running application with an ingest process."""
    async with serving(config, tmp_path, dsn) as running:
        yield running
