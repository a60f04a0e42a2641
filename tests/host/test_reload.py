"""Signals to a process that begins again in its own place."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from ragserve.errors import ConfigurationError
from ragserve.host.reload import ENDS, Reload


@pytest.fixture
async def stop() -> AsyncIterator[asyncio.Event]:
    """What a signal sets; no signal is handled afterwards."""
    yield asyncio.Event()
    for number in (signal.SIGHUP, *ENDS):
        asyncio.get_running_loop().remove_signal_handler(number)


async def receive(*numbers: signal.Signals) -> None:
    """Get signals as a process does, and let the loop see them."""
    seen = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, seen.set)
    for number in (*numbers, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    await seen.wait()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


async def test_a_reload_begins_again(stop: asyncio.Event) -> None:
    """And whoever asks for the end once it is decided is not kept waiting by a handler."""
    reload = Reload(lambda: None, stop)
    await receive(signal.SIGHUP)
    assert stop.is_set()
    assert reload.decide()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_goes_before_a_reload(stop: asyncio.Event, end: signal.Signals) -> None:
    """Whichever of them comes first: `systemctl restart` just after `reload` does not wait."""
    for numbers in ((signal.SIGHUP, end), (end, signal.SIGHUP)):
        stop.clear()
        reload = Reload(lambda: None, stop)
        await receive(numbers[0])
        await receive(numbers[1])
        assert stop.is_set()
        assert not reload.decide()


async def test_a_wrong_configuration_changes_nothing(stop: asyncio.Event) -> None:
    """The process goes on."""

    def check() -> None:
        raise ConfigurationError("unknown setting")

    reload = Reload(check, stop)
    await receive(signal.SIGHUP)
    assert not stop.is_set()
    assert not reload.decide()
