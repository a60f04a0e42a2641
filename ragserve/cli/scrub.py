"""Text without the secrets that may be anywhere in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from ragserve.cli.checks.files import CREDENTIALS
from ragserve.config import Config, secrets_of
from ragserve.config.credentials import DIRECTORY
from ragserve.config.redact import HIDDEN, hide

SHORTEST = 4
"""A shorter secret would hide half of every text; its place in an address hides it nevertheless."""
_NAMES = re.compile(r"key|token|secret|passw|credential|authorization|cookie", re.IGNORECASE)
_PATTERNS = (
    re.compile(r"rs_[0-9a-f]{12}_[\w-]+"),  # our own keys
    re.compile(r"(?<=Bearer )\S+", re.IGNORECASE),
    re.compile(r"\bsk-[\w-]{8,}"),  # what model providers give out
    re.compile(r"(?<=://)[^/?#\s\"'@]*:[^/?#\s\"']*(?=@)"),
    re.compile(r"(?<=password=)[^\s&\"']+", re.IGNORECASE),
)


class Scrubber:
    """Replaces every secret that this host's configuration, environment and files hold."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in (secret, unquote(secret), quote(secret, safe=""))
            if len(form) >= SHORTEST
        }
        # The longest first: one may be part of another.
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text`` with ``HIDDEN`` in place of secrets."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return text


def known_secrets(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Return all secrets that can be found, the values of the environment's among them."""
    found = secrets_of(config)
    hide(dict(environ), found=found)
    found += [value for name, value in environ.items() if _NAMES.search(name) and "/" not in value]
    for directory in {environ.get(DIRECTORY, ""), str(CREDENTIALS)} - {""}:
        found += _contents(Path(directory))
    return found


def _contents(directory: Path) -> list[str]:
    try:
        values = [file.read_text("utf-8").strip() for file in directory.iterdir()]
    except (OSError, UnicodeDecodeError):
        return []  # not there, or not ours to read: then it is not ours to tell, either
    addresses: list[str] = []
    hide(values, found=addresses)
    return values + addresses


def shown_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter here, secrets hidden by their names."""
    ours = ("RAGSERVE_", "DATABASE_URL", "REDIS_URL", "OPENAI_", "OTEL_", "LANG", "LC_", "TZ")
    return {
        name: HIDDEN if _NAMES.search(name) else hide(value, name.lower())
        for name, value in sorted(environ.items())
        if name.startswith(ours)
    }
