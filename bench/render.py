"""Tables and plots from ``bench/results``: ``python -m bench.render`` writes them in place.

The few that sell go into the README, all of them into bench/README.md, what follows for the size of
a machine into conf/README.md; each has a marked place. Plots are SVG files beside the results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import (
    connections,
    costs,
    faults,
    overload,
    plan,
    reloads,
    slow,
    startup,
    streams,
    summary,
    tenants,
)
from bench.marked import fill
from bench.results import RESULTS, read_all
from bench.scenarios import SCENARIOS
from bench.soak import table as soak

ROOT = Path(__file__).parent.parent
MODULE = "bench.render"
OTHERS = {
    "connections": connections,
    "redis-faults": faults,
    "overload": overload,
    "slow": slow,
    "reloads": reloads,
    "tenants": tenants,
    "costs": costs,
    "soak": soak,
}
"""Measurements that are no scenarios of ``bench.run``: those who make their tables."""
SAME = 1.1
"""Contenders that all keep up with the load make no picture."""
HEAD = (
    "| | requests/s | × | errors | p50 ms | p95 ms | p99 ms | CPU µs | MB |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def table(result: dict[str, Any]) -> str:
    """Return a scenario as Markdown: contender by contender, compared with the first."""
    if is_of_streams(result):
        return streams.table(result)
    lines = [f"**{result['scenario']}**: {result['about']}.", "", HEAD]
    contenders = result["contenders"]
    first = next(iter(contenders.values()), None)
    for name, figures in contenders.items():
        latency = figures["latency_ms"]
        share = figures["errors"] / max(1, figures["requests"])
        ratio = figures["requests_per_s"] / max(0.1, first["requests_per_s"]) if first else 0.0
        lines.append(
            f"| {name} | {figures['requests_per_s']:,.0f} | {ratio:.2f} | {share:.1%}"
            f" | {latency['p50']:.2f} | {latency['p95']:.2f} | {latency['p99']:.2f}"
            f" | {figures['cpu_us']:.0f} | {figures['memory_mb']:.0f} |"
        )
    lines += [
        f"| {name} | not run: {reason} | | | | | | | |"
        for name, reason in result["not_run"].items()
    ]
    return "\n".join(lines)


def is_of_streams(result: dict[str, Any]) -> bool:
    """Return whether the load was streams, whose figures are others."""
    return "streams" in result["load"]


def origin(result: dict[str, Any]) -> str:
    """Return where a result is from, in one line."""
    here = result["environment"]
    return (
        f"Servers on {result['server_cores']} of {here['cores']} cores of one machine"
        f" ({here['machine']}, Linux {here['kernel']}), the load generator on the others;"
        f" Python {here['python']}, commit {here['commit']}, {here['at'][:10]}."
    )


def spread(result: dict[str, Any]) -> float:
    """Return the ratio of the fastest contender to the slowest."""
    rates = [figures["requests_per_s"] for figures in result["contenders"].values()]
    return max(rates) / max(0.1, min(rates))


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw a scenario's requests per second as bars."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ragserve"
    from matplotlib import pyplot

    names = list(result["contenders"])
    rates = [figures["requests_per_s"] for figures in result["contenders"].values()]
    figure, axes = pyplot.subplots(figsize=(7, 0.5 + 0.4 * len(names)), layout="constrained")
    axes.barh(names[::-1], rates[::-1], color=["#7a8ca3"] * (len(names) - 1) + ["#c1440e"])
    axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=3)
    axes.set_xlabel("requests/s")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def tables(results: list[dict[str, Any]]) -> str:
    """Return all measurements as Markdown."""
    kept = {result["scenario"]: result for result in results}
    shown = [kept[name] for name in SCENARIOS if name in kept]
    parts = []
    for result in shown:
        parts.append(table(result))
        if has_picture(result):
            parts.append(f"![{result['scenario']}](results/{result['scenario']}.svg)")
    parts += [module.table(kept[name]) for name, module in OTHERS.items() if name in kept]
    if "startup" in kept:
        runs = kept["startup"]["runs"]
        parts.append("**startup**: the time to readiness, and what processes hold.")
        parts.append(startup.table({int(workers): made for workers, made in runs.items()}))
    parts += sorted({origin(result) for result in shown})
    return "\n\n".join(parts)


def has_picture(result: dict[str, Any]) -> bool:
    """Return whether contenders differ enough to be drawn."""
    return result["scenario"] in SCENARIOS and not is_of_streams(result) and spread(result) > SAME


def places(results: list[dict[str, Any]]) -> dict[Path, str]:
    """Return what belongs into which file."""
    return {
        ROOT / "README.md": summary.table({result["scenario"]: result for result in results}),
        ROOT / "bench" / "README.md": tables(results),
        ROOT / "conf" / "README.md": plan.capacity(results),
    }


def main() -> None:
    """Run from the command line."""
    results = read_all()
    for result in filter(has_picture, results):
        plot(result, RESULTS / f"{result['scenario']}.svg")
    for path, body in places(results).items():
        fill(path, MODULE, body)


if __name__ == "__main__":
    main()
