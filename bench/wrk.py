"""wrk as the load generator: connections that ask without a pause, faster than Python can.

The report has the shape of ``bench.load``'s. wrk counts latencies from the moment a request is
sent, so while a server is saturated they say how it shares its time, not how long a queue grew.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from bench.load import requests
from bench.questions import read_questions

PICKS = 4096
"""The question mix repeats after so many."""
WARM_UP_S = 2.0
TIMEOUT_S = 30

_SCRIPT = """
local built = { %(built)s }
local order = { %(order)s }
local n = 0
request = function()
  n = n %% #order + 1
  return built[order[n]]
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "us": %%d, "body_bytes": %%d, "failed": %%d, "refused": %%d,' ..
    ' "p50": %%f, "p95": %%f, "p99": %%f, "max": %%f}\\n',
    summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.timeout, e.status,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
"""


def missing() -> str | None:
    """Return why this cannot be used."""
    return None if shutil.which("wrk") else "wrk is not installed (apt install wrk)"


class Wrk:
    """A generator that asks the questions of a file, more often the earlier ones.

    ``key`` may be empty: then it shows none.
    """

    def __init__(
        self,
        questions: Path,
        *,
        collection: str,
        zipf: float,
        key: str,
        threads: int,
        pin: Callable[[], None],
    ) -> None:
        asked = requests(
            read_questions(questions),
            host="127.0.0.1",
            path="/v1/query",
            fields={"collection": collection},
            zipf=zipf,
            keys=[key] if key else [],
        )
        picks = list(islice(asked, PICKS))
        numbers = {request: number for number, request in enumerate(dict.fromkeys(picks), 1)}
        built = ", ".join(_quoted(request) for request in numbers)
        order = ", ".join(str(numbers[request]) for request in picks)
        self._script = _SCRIPT % {"built": built, "order": order}
        self._threads = threads
        self._pin = pin

    def run(self, port: int, connections: int, seconds: float) -> dict[str, Any]:
        """Return the report of one run."""
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(self._script)
            script.flush()
            command = ["wrk", f"-t{self._threads}", f"-c{connections}", f"-d{seconds:.0f}s"]
            command += ["--timeout", f"{TIMEOUT_S}s", "-s", script.name]
            done = subprocess.run(
                [*command, f"http://127.0.0.1:{port}"],
                capture_output=True,
                text=True,
                check=True,
                timeout=seconds + 2 * TIMEOUT_S,
                preexec_fn=self._pin,
            )
        said = json.loads(done.stdout.splitlines()[-1])
        answers, errors = said["requests"], said["failed"] + said["refused"]
        return {
            "requests": answers,
            "answered": answers,
            "requests_per_s": round(answers / said["us"] * 1e6, 1),
            "errors": errors,
            "error_share": round(errors / max(1, answers), 6),
            "body_bytes": said["body_bytes"],
            "seconds": round(said["us"] / 1e6, 3),
            "latency_ms": {name: said[name] / 1000 for name in ("p50", "p95", "p99", "max")},
        }

    def run_warm(self, port: int, connections: int, seconds: float) -> dict[str, Any]:
        """Return the report of a run after a warm-up, which counts as ``answered`` only."""
        warm = self.run(port, connections, WARM_UP_S)
        report = self.run(port, connections, seconds)
        report["answered"] += warm["answered"]
        return report


def _quoted(data: bytes) -> str:
    """Return a Lua string."""
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'
