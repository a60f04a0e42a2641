"""What PostgreSQL's own programs are told about where to go."""

from __future__ import annotations

import pytest

from ragserve.store.dump import without_password


@pytest.mark.parametrize(
    ("dsn", "shown", "password"),
    [
        ("postgresql://u@a/db?sslmode=require", "postgresql://u@a/db?sslmode=require", None),
        ("postgresql://u:p%20w@a:1/db", "postgresql://u@a:1/db", "p w"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql", None),
        ("postgresql://u:p@a,b/db", "postgresql://u@a,b/db?target_session_attrs=read-write", "p"),
        (
            "postgresql:///db?host=a,b",
            "postgresql:///db?host=a,b&target_session_attrs=read-write",
            None,
        ),
    ],
)
def test_a_command_line_has_no_password(
    monkeypatch: pytest.MonkeyPatch, dsn: str, shown: str, password: str | None
) -> None:
    """It travels in the environment; of several hosts the one that takes writes is meant."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    address, environment = without_password(dsn)
    assert address == shown
    assert environment.get("PGPASSWORD") == password
