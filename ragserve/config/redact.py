"""A configuration without its secrets, for what leaves the host: backups and support bundles.

A setting is secret by its name; of addresses, user information and the values of a query are.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from ragserve.config.settings import Config

T = TypeVar("T")

HIDDEN = "***"
SECRET_NAMES = re.compile(r"(^|_)(key|keys|token|secret|password|credential)s?$")
_USER_INFORMATION = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]*)")


def redacted(config: Config) -> Config:
    """Return ``config`` with every secret that is set replaced by ``HIDDEN``."""
    return msgspec.convert(hide(msgspec.to_builtins(config)), Config)


def secrets_of(config: Config) -> list[str]:
    """Return the secrets themselves, to look for them elsewhere."""
    found: list[str] = []
    hide(msgspec.to_builtins(config), found=found)
    return sorted(set(found), key=len, reverse=True)


def hide(value: Any, name: str = "", *, found: list[str] | None = None) -> Any:
    """Return the value of a setting, or of several, without secrets; they go into ``found``."""
    if isinstance(value, dict):
        return {key: hide(item, key, found=found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide(item, name, found=found) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if SECRET_NAMES.search(name):
        if found is not None:
            found.append(value)
        return HIDDEN
    if "://" not in value:
        return value
    if found is not None:
        for match in _USER_INFORMATION.finditer(value):
            user, _, password = match.group()[:-1].partition(":")
            found.append(password or user)
        found.extend(match.group(2) for match in _QUERY_VALUE.finditer(value) if match.group(2))
    value = _USER_INFORMATION.sub(f"{HIDDEN}@", value)
    return _QUERY_VALUE.sub(rf"\1={HIDDEN}", value)
