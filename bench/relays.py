"""Who relays streams: ragserve, Go's ReverseProxy, aiohttp, LiteLLM's proxy, and nobody."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bench import cores
from bench.contenders import BUILT, KEY, Contender, Place, Up, build_go, missing_go, ragserve
from bench.process import free_port, started

LONG_STREAMS = {
    "RAGSERVE_LLM__CONNECTIONS": "20000",
    "RAGSERVE_LLM__TIMEOUT_S": "120",
    "RAGSERVE_SERVER__REQUEST_TIMEOUT_S": "120",
}


@contextmanager
def paced_model(
    place: Place, *, tokens: int, interval_ms: int, first_ms: int, gives_way: bool = False
) -> Iterator[Place]:
    """Run ``bench.upstream`` beside the generator; yield the place with its port.

    Unless its pace is what is measured it ``gives_way`` to the generator, whose waits count.
    """
    port = free_port()
    command = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
    command += ["--tokens", str(tokens), "--interval-ms", str(interval_ms)]
    command += ["--first-ms", str(first_ms)]
    log = place.directory / "upstream.log"
    with started(command, cores=cores.GENERATORS, log=log) as upstream:
        upstream.wait_listening(port)
        if gives_way:
            upstream.step_back()
        yield place._replace(upstream=port)


def with_model(
    name: str, model: str, workers: int = 1, settings: Mapping[str, str] = LONG_STREAMS
) -> Contender:
    """Return ragserve before the upstream; ``model`` is what is asked of it."""

    def env(place: Place) -> dict[str, str]:
        return {
            "RAGSERVE_LLM__BASE_URL": f"http://127.0.0.1:{place.upstream}/v1",
            "RAGSERVE_LLM__MODEL": "paced",
            # However odd a question, there is something for the model to answer from.
            "RAGSERVE_ANSWER__MIN_SIMILARITY": "0",
            **settings,
        }

    return ragserve(name, workers, env, model)


def aiohttp_relay(name: str) -> Contender:
    """Return aiohttp's client behind its server: what a well-kept client costs."""

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.aiohttp_relay", "--port", str(port)]
        env = {"KEY": KEY, "TARGET": f"http://127.0.0.1:{place.upstream}"}
        log = place.directory / f"{name}.log"
        with started(command, cores=place.cores, log=log, env=env) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, [process])

    return Contender(name, lambda: None, run)


def reverse_proxy(name: str) -> Contender:
    """Return Go's httputil.ReverseProxy on as many cores as it gets."""

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        target = f"http://127.0.0.1:{place.upstream}"
        command = [str(build_go("proxy")), "-port", str(port), "-target", target, "-key", KEY]
        env = {"GOMAXPROCS": str(len(place.cores))}
        log = place.directory / f"{name}.log"
        with started(command, cores=place.cores, log=log, env=env) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, [process])

    return Contender(name, missing_go, run)


def litellm(name: str) -> Contender:
    """Return one worker of LiteLLM's proxy, installed into an environment of its own."""

    def missing() -> str | None:
        try:
            build_litellm()
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip().rpartition("\n")[2]
            return f"pip install 'litellm[proxy]' failed: {why}"
        return None

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        config = place.directory / "litellm.yaml"
        config.write_text(_LITELLM % (place.upstream, KEY), encoding="utf-8")
        command = [str(build_litellm()), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        log = place.directory / "litellm.log"
        with started(command, cores=place.cores, log=log, env=env) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/health/liveliness")
            yield Up(port, [process])

    return Contender(name, missing, run)


@cache
def build_litellm() -> Path:
    """Return LiteLLM's command: the one on the path, or one that is installed once for all runs."""
    if (found := shutil.which("litellm")) is not None:
        return Path(found)
    home = BUILT / "litellm"
    program = home / "bin" / "litellm"
    if not program.exists():
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [str(home / "bin" / "pip"), "install", "-q", "litellm[proxy]"],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
    return program


def nobody(name: str) -> Contender:
    """Return the upstream itself: what readers and upstream can do."""

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        yield Up(place.upstream, [])

    return Contender(name, lambda: None, run)


_LITELLM = """
model_list:
  - model_name: paced
    litellm_params:
      model: openai/paced
      api_base: http://127.0.0.1:%d/v1
      api_key: none
general_settings:
  master_key: %s
"""
