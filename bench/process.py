"""Processes under measurement: started pinned, awaited, stopped with their children."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0


class Started:
    """A running process and its descendants."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def family(self) -> list[psutil.Process]:
        """Return the process and all below it that live."""
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """Return the processor time used so far, user and system."""
        used = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def own_cpu_s(self) -> float:
        """Return the processor time of the process alone, in nanoseconds' precision."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9

    def memory_mb(self) -> float:
        """Return the resident memory; what several share is counted once (PSS)."""
        held = 0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                held += process.memory_full_info().pss
        return round(held / 1024**2, 1)

    def wait_ready(self, url: str, pause_s: float = 0.1, says: bytes = b"") -> None:
        """Return when ``url`` answers with 200 and a body with ``says`` in it."""
        until = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(url, timeout=5) as response,
            ):
                if response.status == 200 and says in response.read():
                    return
            time.sleep(pause_s)
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{url} is not ready:\n{tail}")

    def wait_listening(self, port: int) -> None:
        """Return when connections to ``port`` are accepted."""
        until = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=5),
            ):
                return
            time.sleep(0.05)
        raise RuntimeError(f"nobody listens on port {port}")

    def step_back(self) -> None:
        """Let others on the same cores go first."""
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)
        os.sched_setscheduler(self._process.pid, os.SCHED_BATCH, os.sched_param(0))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it: asked first, then by force."""
        family = self.family()
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


@contextlib.contextmanager
def started(
    command: Sequence[str], *, cores: set[int], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Run ``command`` on ``cores`` while the block runs."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        for thread in psutil.Process(process.pid).threads():
            os.sched_setaffinity(thread.id, cores)
        running = Started(process, log)
        try:
            yield running
        finally:
            running.stop()


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; of one that has ended, nothing."""
    try:
        words: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return words


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def open_files(count: int) -> None:
    """Allow so many files to be open, connections included."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > most:
        raise SystemExit(f"{count} files have to be open, {most} may be (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
