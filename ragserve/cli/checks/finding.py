"""What one check found: good, doubtful or bad, and what mends it."""

from __future__ import annotations

from typing import Literal

import msgspec

from ragserve.errors import EXIT_FAILURE, RagserveError, exit_code

Verdict = Literal["pass", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """``remedy`` is a command or a setting; ``exit_code`` is what a failure makes the command's."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    exit_code: int = 0


def passed(name: str, detail: str) -> Finding:
    """Return that all is well."""
    return Finding(name, "pass", detail)


def doubtful(name: str, detail: str, remedy: str) -> Finding:
    """Return what works today and may not tomorrow."""
    return Finding(name, "warn", detail, remedy)


def failed(name: str, error: RagserveError | str, remedy: str) -> Finding:
    """Return what does not work; an error brings its own exit code."""
    if isinstance(error, str):
        return Finding(name, "fail", error, remedy, EXIT_FAILURE)
    return Finding(name, "fail", error.message, remedy, exit_code(error))
