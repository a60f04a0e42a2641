"""What a person hears while a command takes its time."""

from __future__ import annotations

import io
import threading

from ragserve.cli.waiting import telling


class Terminal(io.StringIO):
    """Standard error of somebody who looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.told.set()


def test_a_person_hears_what_is_waited_for() -> None:
    """What takes longer than the patience is said while it goes on."""
    terminal = Terminal()
    with telling("starting the database", terminal, patience_s=0.0):
        assert terminal.told.wait(10)
        assert terminal.getvalue() == "starting the database …\n"


def test_what_is_quick_is_done_in_silence() -> None:
    """Nothing is said later of what is over."""
    terminal = Terminal()
    with telling("starting the database", terminal, patience_s=30.0):
        (timer,) = (one for one in threading.enumerate() if isinstance(one, threading.Timer))
    timer.join(10)
    assert terminal.getvalue() == ""


def test_a_script_hears_nothing() -> None:
    """Only a terminal has somebody who waits."""
    with telling("starting the database", io.StringIO(), patience_s=0.0):
        assert not any(isinstance(one, threading.Timer) for one in threading.enumerate())
