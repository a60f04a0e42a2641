"""Requests per second and latency of ``/v1/search``, mode by mode, under wrk.

``python -m bench.search QUERIES --collection C --url URL`` asks the questions of a queries.jsonl in
turn over keep-alive connections, past the cache of answers. After a warm-up every question's
vector is in the worker's cache, so the figures are those of retrieval. wrk is a Debian package.
Pin server and wrk to different cores (``taskset``) before you compare anything.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

MODES = ("lexical", "dense", "hybrid")
WARM_UP_S = 3
LATENCY = re.compile(r"^\s+(50|99)%\s+(\S+)", re.MULTILINE)
RATE = re.compile(r"^Requests/sec:\s+(\S+)", re.MULTILINE)
FAILED = re.compile(r"^.*(?:Non-2xx|Socket errors).*$", re.MULTILINE)

SCRIPT = """
local bodies = {%s}
local next = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Cache-Control"] = "no-store"
request = function()
  next = next + 1
  return wrk.format(nil, "/v1/search", nil, bodies[next %% #bodies + 1])
end
"""


def run_wrk(url: str, script: str, connections: int, seconds: int) -> str:
    """Return what wrk prints."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("queries", type=Path, help="queries.jsonl")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--collection", default="default")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed (apt install wrk)")
    lines = arguments.queries.read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["text"] for line in lines if line.strip()]
    print("| mode | requests/s | p50 | p99 | errors |\n|---|---|---|---|---|")
    for mode in MODES:
        bodies = (
            json.dumps(
                json.dumps({"query": text, "collection": arguments.collection, "mode": mode})
            )
            for text in questions
        )
        with NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as script:
            script.write(SCRIPT % ",".join(bodies))
            script.flush()
            run_wrk(arguments.url, script.name, arguments.connections, WARM_UP_S)
            said = run_wrk(arguments.url, script.name, arguments.connections, arguments.seconds)
        latency = dict(LATENCY.findall(said))
        failed = FAILED.search(said)
        rate = RATE.search(said)
        print(
            f"| {mode} | {float(rate[1]) if rate else 0:.0f} | {latency.get('50')} "
            f"| {latency.get('99')} | {failed[0].strip() if failed else 0} |"
        )


if __name__ == "__main__":
    main()
