"""What the index holds: fields, a result's record, metadata as terms, the state.

The state is a document of the index itself, so it is committed together with what it describes.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import tantivy

from ragserve.config import Language

FORMAT = 1
"""Raised whenever fields or analysis change; an index of another format is rebuilt."""
BODY_TOKENIZER = "body"
STATE_KEY = -1
"""The document key of the state; real ones count from 1."""
LONG_VALUE_BYTES = 256
EXACT_INTEGERS = 2**53
"""Below, every integer is a double."""

_SEPARATOR = "\x1f"


@contextlib.contextmanager
def damage_is_an_error() -> Iterator[None]:
    """Turn a panic of the library, which means a damaged file, into ``ValueError``."""
    try:
        yield
    except BaseException as error:
        # pyo3_runtime.PanicException cannot be imported, and is no Exception.
        if type(error).__name__ == "PanicException":
            raise ValueError(f"the index is damaged: {error}") from error
        raise


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """A passage as results show it, stored as JSON."""

    document_id: str
    chunk_id: str
    title: str
    url: str | None
    text: str
    metadata: msgspec.Raw
    position: int
    page: int | None = None
    heading: str | None = None


class IndexState(msgspec.Struct, frozen=True):
    """Everything up to ``version`` of the collection is in the index.

    ``born`` is the collection's: another database may have one of the same id.
    """

    format: int
    language: Language
    version: int
    born: int = 0


def index_directory(data_dir: Path, collection_id: int) -> Path:
    """Return the directory of a collection's index."""
    return data_dir / "index" / str(collection_id)


def build_schema() -> tantivy.Schema:
    """Return the schema of every collection's index."""
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("chunk", fast=True)
    builder.add_integer_field("document", indexed=True)
    builder.add_text_field("body", tokenizer_name=BODY_TOKENIZER, index_option="freq")
    builder.add_text_field("title", tokenizer_name=BODY_TOKENIZER, index_option="freq")
    builder.add_text_field("metadata", tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("stored", stored=True)
    return builder.build()


def metadata_terms(metadata: bytes) -> list[str]:
    """Return the terms of a JSON object's own scalar values; lists count value by value."""
    terms = []
    for name, value in msgspec.json.decode(metadata, type=dict[str, Any]).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool | int | float | str):
                terms.append(value_term(name, item))  # noqa: PERF401 - two loops and a test
    return terms


def value_term(name: str, value: bool | float | str) -> str:
    """Return the term of ``name = value``."""
    return value_prefix(name, value) + _sortable(value)


def value_prefix(name: str, value: bool | float | str) -> str:
    """Return what all terms of this name and this kind of value start with."""
    kind = "b" if isinstance(value, bool) else "s" if isinstance(value, str) else "n"
    # The length keeps names that hold the separator apart from values that do.
    return f"{len(name)}{_SEPARATOR}{name}{_SEPARATOR}{kind}"


def _sortable(value: bool | float | str) -> str:
    """Write a value so that terms sort as values do."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        encoded = value.encode()
        if len(encoded) <= LONG_VALUE_BYTES:
            return value
        # Too long for a term: its head still sorts, the digest keeps it distinct.
        head = encoded[:LONG_VALUE_BYTES].decode(errors="ignore")
        return head + _SEPARATOR + hashlib.blake2b(encoded, digest_size=16).hexdigest()
    number, rest = _floor_double(value)
    (bits,) = struct.unpack(">Q", struct.pack(">d", number))
    # IEEE 754 doubles sort as integers once negative ones are inverted and the sign flipped.
    bits ^= 0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else 1 << 63
    # Integers between two doubles sort behind the lower one, by their distance to it.
    return f"{bits:016x}" + (f"{_SEPARATOR}{len(f'{rest:x}'):03}{rest:x}" if rest else "")


def _floor_double(value: float) -> tuple[float, int]:
    """Return the largest double not above ``value``, and what is missing to ``value``."""
    if isinstance(value, float):
        if abs(value) < EXACT_INTEGERS or math.isinf(value):
            return value + 0.0, 0  # -0.0 is 0.0
        # JSON writes the shortest decimal that reads back as this double: that is its value.
        value = int(Decimal(repr(value)))
    try:
        number = float(value)
    except OverflowError:
        return (math.inf if value > 0 else -math.inf), 0
    if math.isinf(number):
        return number, 0
    if int(number) > value:
        number = math.nextafter(number, -math.inf)
    return number, int(value) - int(number)
