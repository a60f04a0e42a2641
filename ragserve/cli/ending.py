"""How a command ends: its exit code, and what a person is told of what went wrong."""

from __future__ import annotations

import errno
import sys

import click

from ragserve.cli.main import cli
from ragserve.errors import EXIT_CONFIGURATION, EXIT_UNAVAILABLE, RagserveError, exit_code

OWN = "run this as the user whose files these are, or choose another --data-dir"
OTHER = "choose another --data-dir"
REMEDIES = {
    errno.EACCES: (EXIT_CONFIGURATION, OWN),
    errno.EPERM: (EXIT_CONFIGURATION, OWN),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EROFS),
        (EXIT_CONFIGURATION, "choose another --data-dir"),
    ),
    errno.ENOSPC: (EXIT_UNAVAILABLE, "make room, or choose another --data-dir"),
}
"""What ends a command without being its fault, the exit code, and what mends it."""


def main() -> None:
    """Run the command line; end with its exit code."""
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except RagserveError as error:
        click.echo(f"ragserve: {error.message}", err=True)
        code = exit_code(error)
    except OSError as error:
        if error.errno not in REMEDIES or error.filename is None:
            raise
        code, remedy = REMEDIES[error.errno]
        click.echo(f"ragserve: {error.filename}: {error.strerror}: {remedy}", err=True)
    sys.exit(code)
