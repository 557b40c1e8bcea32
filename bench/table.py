"""Reports as tables for people: docs/performance.md, and the README's few figures, are written from them.

python bench/table.py                  # every report in bench/results
python bench/table.py --write          # write docs/performance.md, and what stands between the markers of README.md
python bench/table.py --check          # exit 1 where those are not what the reports say
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from sdwidgets.pocket.cards import rendered

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- performance: written by bench/table.py -->", "<!-- end of performance -->"

TEMPLATE = Path(__file__).with_name("performance.md.jinja")
NOT_MEASURED = "not measured"
BUSY = 0.5  # load at the start from which on a machine was not quiet
WAYS = ("stock", "exact", "fast", "turbo", "turbo, fast")  # that a report should have
#: what issue and README ask for: at least for speeds and decibels, at most for what is added
GOALS = {
    "fast": 4.0, "turbo, fast": 15.0, "agreement": 40.0, "recorded": 3.0, "recorded, previews": 5.0, "memory": 5.0, "live": 10.0,
    "on a GPU": 2.0,
}  # fmt: skip
#: sections of a whole report, and of its second pass
SECTIONS = ("pictures", "parts", "agreement", "recording", "batches", "startup", "memory", "lab", "live", "choices", "many")  # fmt: skip
CHILDS = SECTIONS[:5]


def milliseconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def times(ratio: dict) -> str:
    """A ratio and its interval, 3.97 (3.91 to 4.05)."""
    return "{:.2f} ({:.2f} to {:.2f})".format(ratio["median"], *ratio["interval"])


def percent(ratio: dict) -> str:
    """What is added by a way that takes so many times as long: 1.9% (1.6 to 2.3)."""
    return "{:.1f}% ({:.1f} to {:.1f})".format(*(100 * (edge - 1) for edge in (ratio["median"], *ratio["interval"])))


def spread(summary: dict) -> str:
    """A median and its quartiles, of seconds: 627 ms (610 ms to 650 ms)."""
    return "{} ({} to {})".format(*map(milliseconds, (summary["median"], *summary["quartiles"])))


def verdict(median: float, interval, limit: float, *, at_most: bool = False, unit: str = "") -> str:
    """The goal, and whether it is met: judged by the bad end of the interval. "4: not shown": the median alone meets it."""
    low, high = interval or (median, median)
    bad = max(high, median) if at_most else min(low, median)
    met, median_met = (bad <= limit, median <= limit) if at_most else (bad >= limit, median >= limit)
    return f"{limit:g}{unit}: {'reached' if met else 'not shown' if median_met else 'not reached'}"


def added(ratio: dict, limit: float) -> str:
    """The verdict on what a way adds, from how many times as long it takes."""
    low, high = (100 * (edge - 1) for edge in ratio["interval"])
    return verdict(100 * (ratio["median"] - 1), (low, high), limit, at_most=True, unit="%")


def memory_goal(section: dict) -> str:
    """The verdict on how much memory has grown."""
    growth = [100 * edge for edge in (section["growth"], *section.get("interval", ()))]
    return verdict(growth[0], growth[1:], GOALS["memory"], at_most=True, unit="%")


def measured(section: dict | None) -> bool:
    """Whether a section, or a pass, holds figures."""
    return bool(section) and "left_out" not in section and ("error" not in section or "machine" in section)


def unmeasured(report: dict, sections) -> list[str]:
    """The sections without figures, each with the reason where that is known."""
    names = []
    for name in sections:
        section = report.get(name) or {}
        if not measured(section):
            why = f"failed: {section['error']}" if "error" in section else section.get("left_out")
            names.append(f"{name} ({why})" if why else name)
    return names


def wide_kernels(report: dict) -> str:
    """What still uses AVX-512 in the pass that is told to do without: "products", "others" or nothing."""
    networks = ((report.get("avx2") or {}).get("parts") or {}).get("fast", {}).values()
    kernels = [kind for network in networks for kind in network["kernels"] if "avx512" in kind]
    return "products" if any("brg" in kind for kind in kernels) else "others" if kernels else ""


def machine_line(report: dict) -> str:
    machine = report["machine"]
    on_a_gpu = "gpu" in machine and report["bench"] == "gpu"
    device = machine["gpu"]["name"] if on_a_gpu else f"{machine['processor']}, {machine['threads']} threads"
    versions = machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "openvino") if versions.get(name))
    weights = "" if report["bench"] == "training" else f" weights {report.get('weights', 'random')};"
    return f"{device}; {named};{weights} commit {machine['commit']}, {machine['date']}."


def describe(report: dict, weights: str | None = None) -> str:
    """One report as Markdown. `weights`: the digest of those that data/pocket has now, to compare the report's with; None: not compared."""
    models = {name: model for name, model in report.get("models", {}).items() if measured(model)}
    wanted = report.get("sections", SECTIONS)
    sections = wanted if len(wanted) == 1 else SECTIONS  # a report of one section says nothing of the others
    compiled = "gpu" not in report["machine"] and any("compiled" in row["change"] for row in report.get("rows", ()))
    values = {
        "report": report, "weights": weights, "machine_line": machine_line(report), "busy": BUSY, "goals": GOALS, "ways": WAYS,
        "load": (report["machine"].get("load_average") or [0.0])[0], "sections": sections, "sections_of_a_child": CHILDS,
        "not_measured": NOT_MEASURED, "measured": measured, "unmeasured": unmeasured, "verdict": verdict, "memory_goal": memory_goal,
        "wide_kernels": wide_kernels(report), "models": models, "compiled": compiled,
    }  # fmt: skip
    filters = {"ms": milliseconds, "times": times, "percent": percent, "spread": spread, "added": added}
    filters["giga"] = lambda number, digits: f"{number / 1e9:.{digits}f}"
    return re.sub(r"\n{3,}", "\n\n", rendered(TEMPLATE, values, filters)).strip()


NOTHING = (
    "No figures yet: nothing has been measured on a quiet machine since the last change. `make bench` measures it."
)


def reports(folder: Path = RESULTS) -> dict[str, dict]:
    """File name -> report, of all that are in the folder and are not a try; single sections after whole reports, training last, which fewer ask about."""
    loaded = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    kept = [(n, r) for n, r in loaded.items() if r.get("bench") in ("cpu", "gpu", "training") and not r.get("quick")]
    rank = lambda report: (report.get("bench") == "training", len(report.get("sections", SECTIONS)) == 1)
    return dict(sorted(kept, key=lambda item: rank(item[1])))


@functools.cache
def weights_now() -> str | None:
    """The digest of the weights in data/pocket; None where there are none."""
    from bench.harness import digest

    folder = ROOT / "data" / "pocket"
    return digest(folder) if folder.is_dir() else None


def page(by_name: dict[str, dict], weights: str | None = None) -> str:
    """docs/performance.md. `weights`: by default those that data/pocket has now."""
    if not by_name:
        return NOTHING
    lead = (
        "Measured by `python -m bench` (two cores), `python bench/gpu.py` and `python bench/training.py`; written from `bench/results/` by "
        "`python bench/table.py --write`. Times are medians with quartiles; ratios are medians over alternating repetitions, with 95% intervals. "
        "A goal is reached if the worse end of the interval meets it, and not shown if only the median does."
    )
    weights = weights or weights_now()
    parts = [f"## {name}\n\n{describe(report, weights)}" for name, report in by_name.items()]
    return "\n\n".join(["# Performance", lead, *parts]) + "\n"


def figures(by_name: dict[str, dict]) -> str:
    """What the README tells: how much faster, and what recording adds, of the first report that has both."""
    whole = (r for r in by_name.values() if measured(r.get("pictures")) and measured(r.get("recording")))
    if (report := next(whole, None)) is None:
        return NOTHING
    ways, run = report["pictures"]["ways"], report["recording"]["fast"]["recorded"]
    fast, turbo = ways["fast"], ways["turbo, fast"]
    whose = "" if report.get("weights") == weights_now() else ", of earlier weights"
    return f"""On {machine_line(report).partition(";")[0]}{whose}, with 95% intervals:

- `load(speed="fast")` draws the same picture, up to rounding, {times(fast["faster"])} times as fast as stock diffusers;
- with `turbo=True`, in four steps, {times(turbo["faster"])} times as fast: a picture every {milliseconds(turbo["seconds"]["median"])};
- recording every step of a fast run adds {percent(run["times"])} to it."""


def between_markers(text: str) -> str:
    """What README.md says now. ValueError where it lacks the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once each")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


PERFORMANCE = ROOT / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and README.md's figures")
    parser.add_argument("--check", action="store_true", help="compare both with the reports")
    args = parser.parse_args(arguments)
    by_name, readme = reports(), ROOT / "README.md"
    text, short, now = page(by_name), figures(by_name), readme.read_text(encoding="utf-8")
    if args.check:
        same = between_markers(now) == short and PERFORMANCE.read_text(encoding="utf-8") == text
        print("the pages say what the reports say" if same else "run: python bench/table.py --write")
        return 0 if same else 1
    if not args.write:
        print(text)
        return 0
    between_markers(now)
    before, _, rest = now.partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{short}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    PERFORMANCE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
