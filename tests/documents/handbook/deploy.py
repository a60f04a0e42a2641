"""Deploy a new timetable to the displays on the piers.

Run it on the operations server after the planner has signed the timetable off. Displays are
updated pier by pier, and a pier whose displays do not confirm within the deadline is rolled back
to the timetable before. The whole roll-out stops when a second pier fails.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

PIERS = ("HLM", "ORS", "KBH")
"""Quietest first: a mistake at Halm is seen by 200 people a day, one at Kestrel Bay by 4,000."""

CONFIRM_TIMEOUT_S = 90
"""Displays fetch the file once a minute, so a healthy one confirms well within this."""

QUIET_HOURS = range(1, 4)
"""Roll-outs are allowed from 01:00 to 03:59, when no ferry sails."""


@dataclass(frozen=True)
class Timetable:
    """A signed timetable file and the season it is valid for."""

    path: Path
    season: str

    @property
    def checksum(self) -> str:
        """Return what the displays compare before they switch over."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class RolloutStopped(Exception):
    """Two piers did not confirm; the planner on call is Dagny Holt, extension 227."""


def allowed_at(hour: int) -> bool:
    """Tell whether a roll-out may start in this hour of the night."""
    return hour in QUIET_HOURS


def roll_out(timetable: Timetable, confirmed: dict[str, str]) -> list[str]:
    """Return the piers that show the new timetable.

    ``confirmed`` maps a pier to the checksum its displays reported after ``CONFIRM_TIMEOUT_S``.
    """
    updated: list[str] = []
    failed: list[str] = []
    for pier in PIERS:
        if confirmed.get(pier) == timetable.checksum:
            updated.append(pier)
            continue
        failed.append(pier)
        if len(failed) == 2:
            raise RolloutStopped(f"{timetable.season}: {', '.join(failed)} did not confirm")
    return updated
