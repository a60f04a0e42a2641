"""Reading processes: what hangs or dies costs one document, not the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragserve.ingest.prepare import Prepared, Refused, Source
from ragserve.ingest.readers import Readers
from tests.conftest import configured


@pytest.fixture
def readers() -> Iterator[Readers]:
    """One reading process with a short deadline."""
    config = configured(ingest__read_timeout_s=2.0, ingest__memory_bytes=512 * 1024**2)
    started = Readers(config.ingest, config.chunking)
    yield started
    started.close()


async def test_outcomes_come_in_order(readers: Readers) -> None:
    """Every document gets its outcome, refused ones between the others."""
    sources = [
        Source("a.txt", b"alpha"),
        Source("b.txt", b""),
        Source("folder/c.txt", b"gamma", title="Given"),
    ]
    first, second, third = await readers.read(sources)
    assert isinstance(first, Prepared)
    assert (first.title, [chunk.text for chunk in first.chunks]) == ("a.txt", ["alpha"])
    assert second == Refused("b.txt: the file is empty")
    assert isinstance(third, Prepared)
    assert third.title == "Given"


async def test_a_document_that_hangs_is_refused_alone(
    readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that never ends is killed; the documents beside it are read."""
    hang = tmp_path / "hang"
    hang.mkdir()
    # The reading process starts with this module on its path and finds the hanging reader there.
    (hang / "sitecustomize.py").write_text(
        "import time, ragserve.ingest.read.reading as reading\n"
        "read = reading.read_document\n"
        "def slow(data, name, kind=None):\n"
        "    if name == 'hang.txt': time.sleep(3600)\n"
        "    if name == 'die.txt': import os; os._exit(9)\n"
        "    return read(data, name, kind)\n"
        "reading.read_document = slow\n"
        "import ragserve.ingest.read as package\n"
        "package.read_document = slow\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(hang))
    names = ("a.txt", "hang.txt", "die.txt", "b.txt")
    outcomes = await readers.read([Source(name, b"words") for name in names])
    assert [type(outcome) for outcome in outcomes] == [Prepared, Refused, Refused, Prepared]
    assert outcomes[1] == Refused("hang.txt: reading took longer than ingest.read_timeout_s = 2.0")
    assert isinstance(outcomes[2], Refused)
    assert outcomes[2].reason.startswith("die.txt: its reading process died")
