"""Files: may they be used by the server, and by nobody else?"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from ragserve.cli.checks.finding import Finding, doubtful, failed, passed
from ragserve.config import load_config, secrets_of
from ragserve.config.credentials import DIRECTORY

CREDENTIALS = Path("/etc/ragserve/credentials")
"""Where the systemd units look for secrets."""
ENVIRONMENT = Path("/etc/ragserve/environment")
OTHERS = stat.S_IRWXG | stat.S_IRWXO
MANY_HAVE = stat.S_IWGRP | stat.S_IWOTH
ACL = "system.posix_acl_access"
ACL_ENTRY = struct.Struct("<HHI")
"""Tag, permissions and id; see acl(5) and the kernel's posix_acl_xattr.h."""
ACL_HEADER_BYTES = 4
ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK = 0x02, 0x04, 0x08, 0x10


def check_files(
    config_file: Path | None, data_dir: Path, environ: Mapping[str, str]
) -> list[Finding]:
    """Return how data directory, configuration and credentials are guarded."""
    return [
        _check_data_dir(data_dir),
        *_check_config_file(config_file, environ),
        *_check_credentials(environ),
    ]


def _check_data_dir(data_dir: Path) -> Finding:
    name = "data directory"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"{data_dir}: {error.strerror}"
        return failed(name, text, "storage.data_dir or --data-dir names another place")
    if not os.access(data_dir, os.W_OK | os.X_OK):
        owner = f"chown -R {os.geteuid()} {data_dir}"
        return failed(name, f"{data_dir}: not writable for user {os.geteuid()}", owner)
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & MANY_HAVE:
        return failed(
            name, f"{data_dir}: mode {mode:o}, others may write", f"chmod go-w {data_dir}"
        )
    index = data_dir / "index"
    if index.is_dir() and stat.S_IMODE(index.stat().st_mode) & OTHERS and mode & stat.S_IROTH:
        text = f"{data_dir}: mode {mode:o}, every user of this host may read the documents"
        return doubtful(name, text, f"chmod o-r {data_dir} && chmod 700 {index}")
    return passed(name, str(data_dir))


def _check_config_file(file: Path | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    name = "configuration"
    variables = sorted(variable for variable in environ if variable.startswith("RAGSERVE_"))
    over = f", over it {', '.join(variables)}" if variables else ""
    if file is None:
        yield passed(name, f"defaults{over}")
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & OTHERS and secrets_of(load_config(file)):
        yield doubtful(
            name,
            f"{file}: mode {mode:o}, and there are secrets in it",
            f"chmod 600 {file}, or give secrets by variables or credentials",
        )
        return
    yield passed(name, f"{file}{over}")


def _check_credentials(environ: Mapping[str, str]) -> Iterator[Finding]:
    name = "credentials"
    given = environ.get(DIRECTORY)
    directory = Path(given) if given else CREDENTIALS
    try:
        files = sorted(directory.iterdir()) if directory.is_dir() else []
    except PermissionError:
        yield passed(name, f"{directory}: closed to this user")
        return
    loose = [path for path in (directory, *files) if _is_loose(path)] if files else []
    if ENVIRONMENT.is_file() and _is_loose(ENVIRONMENT):
        loose.append(ENVIRONMENT)
    if loose:
        listed = ", ".join(map(str, loose))
        text = f"{listed}: other users than the owner may read"
        yield failed(name, text, f"chmod go= {' '.join(map(str, loose))}")
    elif files:
        yield passed(name, f"{len(files)} in {directory}, for their owner alone")


def _is_loose(path: Path) -> bool:
    """Return whether others may list a directory, or read a file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & OTHERS:
        return False
    try:
        acl = os.getxattr(path, ACL)
    except OSError:  # it has none, or its file system knows of none
        return True
    # With one, the group's bits are only the most that it grants: systemd leaves a secret to root
    # and lets the service's user read it by name.
    return bool(mode & stat.S_IRWXO) or _grants_others(acl)


def _grants_others(acl: bytes) -> bool:
    entries = list(ACL_ENTRY.iter_unpack(acl[ACL_HEADER_BYTES:]))
    most = next((rights for tag, rights, _ in entries if tag == ACL_MASK), 7)
    return any(
        rights & most
        and (tag in (ACL_GROUP_OBJ, ACL_GROUP) or (tag == ACL_USER and who not in _OURSELVES))
        for tag, rights, who in entries
    )


_OURSELVES = (0, os.geteuid())
