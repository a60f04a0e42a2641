"""Secrets that systemd hands over: files in ``$CREDENTIALS_DIRECTORY``, see systemd.exec(5).

A file is named like the environment variable that it stands for. ``LoadCredential=ragserve:DIR``
makes ``ragserve_NAME`` of every file ``DIR/NAME``, so that prefix is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ragserve.errors import ConfigurationError

DIRECTORY = "CREDENTIALS_DIRECTORY"
UNIT_PREFIX = "ragserve_"


def read_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables and their values; raise ``ConfigurationError`` if a file is not readable."""
    directory = environ.get(DIRECTORY)
    if not directory:
        return {}
    try:
        return {
            file.name.removeprefix(UNIT_PREFIX): file.read_text(encoding="utf-8").strip()
            for file in sorted(Path(directory).iterdir())
        }
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"credentials in {directory}: {error}") from error
