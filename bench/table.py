"""Reports as tables for people, and the README's section on performance, written from them.

python bench/table.py                  # every report in bench/results
python bench/table.py --readme         # write the section between the markers of README.md
python bench/table.py --check          # exit 1 where that section is not what the reports say
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- performance: written by bench/table.py -->", "<!-- end of performance -->"

Row = tuple[str, ...]


def table(head: Row, rows: list[Row]) -> str:
    """A Markdown table; the first column is left, numbers are right."""
    rules = "|" + "|".join("-" if column == 0 else "-:" for column in range(len(head))) + "|"
    return "\n".join([f"| {' | '.join(head)} |", rules, *(f"| {' | '.join(row)} |" for row in rows)])


def milliseconds(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds >= 10
        else f"{seconds:.2f} s"
        if seconds >= 1
        else f"{1000 * seconds:.3g} ms"
    )


def times(found: dict) -> str:
    """A ratio and its interval, 3.97 (3.91 to 4.05)."""
    low, high = found["interval"]
    return f"{found['median']:.2f} ({low:.2f} to {high:.2f})"


def percent(found: dict) -> str:
    """What is added by a way that takes so many times as long: 1.9% (1.6 to 2.3)."""
    low, high = (100 * (edge - 1) for edge in found["interval"])
    return f"{100 * (found['median'] - 1):.1f}% ({low:.1f} to {high:.1f})"


# ---- two cores ---------------------------------------------------------------------------------------------------


def ways_rows(ways: dict, asked: dict) -> list[Row]:
    limits = {"fast": asked.get("fast"), "turbo, fast": asked.get("turbo, fast")}
    rows = []
    for name, found in ways.items():
        limit = limits.get(name)
        goal = (
            ""
            if limit is None
            else f"{limit:g}: {'reached' if found['faster']['median'] >= limit else 'not reached'}"
        )
        rows.append((name, milliseconds(found["seconds"]["median"]), times(found["faster"]), goal))
    return rows


#: what issue and README ask for: at least for speeds and decibels, at most for what is added
ASKED = {
    "fast": 4.0,
    "turbo, fast": 15.0,
    "agreement": 40.0,
    "recorded": 3.0,
    "recorded, previews": 5.0,
    "memory": 5.0,
    "live": 10.0,
}


def describe_cpu(report: dict) -> str:
    parts = [machine_line(report)]
    if report.get("quick"):
        parts.append("**A try with one turn of everything: these figures mean nothing.**")
    parts += passes(report)
    child = report.get("avx2")
    if child:
        parts.append(
            "The same machine told to do without AVX-512 and AMX (`ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`):"
        )
        told = child.get("parts", {}).get("fast", {})
        kernels = [kind for network in told.values() for kind in network["kernels"]]
        if any("avx512" in kind and "brg" in kind for kind in kernels):
            parts.append(
                "OpenVINO's products do not heed that request, so here only stock and exact are slower, and the ratio is too good."
            )
        elif any("avx512" in kind for kind in kernels):
            parts.append("OpenVINO's products heed that; a few of its small kernels still use AVX-512.")
        parts += passes(child)
    return "\n\n".join(parts)


def passes(report: dict) -> list[str]:
    """The tables of one pass."""
    parts = []
    if "pictures" in report:
        head = (f"{report['steps']} guided steps, 128x128", "a picture", "times as fast as stock", "asked")
        parts.append(table(head, ways_rows(report["pictures"]["ways"], ASKED)))
    if report.get("agreement"):
        found = report["agreement"]
        low, high = found["interval"]
        parts.append(
            f"Fast and exact agree to {found['decibels']['median']:.1f} dB ({low:.1f} to {high:.1f}) at the median of {found['pictures']} "
            f"pictures, {found['decibels']['least']:.1f} dB at the worst; asked are {ASKED['agreement']:g} dB."
        )
    if "parts" in report:
        parts.append(parts_table(report["parts"]))
        whole = report["parts"]["picture"]
        fast = report.get("pictures", {}).get("ways", {}).get("fast")
        far = (
            f"; fast takes {fast['seconds']['median'] / whole['floor_fast_seconds']:.1f} times that"
            if fast
            else ""
        )
        parts.append(
            f"Floor of a whole picture: {whole['operations'] / 1e9:.1f} GFLOP as stock computes it, {milliseconds(whole['floor_seconds'])} at this "
            f"machine's best rate ({whole['precision']}, {report['parts']['rates'][whole['precision']] / 1e9:.0f} GFLOP/s); "
            f"{milliseconds(whole['floor_fast_seconds'])} for what fast computes{far}."
        )
    if "recording" in report:
        rows = []
        for pipe, ways in report["recording"].items():
            for way in ("recorded", "recorded, previews"):
                good = 100 * (ways[way]["times"]["median"] - 1) <= ASKED[way]
                rows.append(
                    (
                        f"{pipe}, {way}",
                        percent(ways[way]["times"]),
                        f"{ASKED[way]:g}%: {'reached' if good else 'not reached'}",
                    )
                )
        parts.append(table(("recording, until the trace is on the host", "added to a run", "asked"), rows))
    if "batches" in report:
        found = report["batches"]["pictures_a_second"]
        sizes = list(next(iter(found.values())))
        rows = [
            (name, *(f"{by_size[size]['median']:.2f}" for size in sizes)) for name, by_size in found.items()
        ]
        parts.append(table(("pictures a second, drawn at once:", *sizes), rows))
    if "startup" in report:
        rows = [(name, milliseconds(found["median"]), milliseconds(found["least"]), milliseconds(found["most"])) for name, found in report["startup"].items()]  # fmt: skip
        parts.append(table(("start-up, in fresh processes", "median", "least", "most"), rows))
    if "memory" in report:
        found = report["memory"]
        parts.append(
            f"Memory after {found['runs']:,} runs in one Playground: {100 * found['growth']:+.1f}% since the first tenth of them; asked are at most "
            f"{ASKED['memory']:g}%."
        )
    if report.get("live"):
        rows = []
        for name, hands in report["live"].items():
            for hand, found in hands.items():
                good = found["pictures"] >= ASKED["live"]
                rows.append(
                    (
                        f"{name}, {hand}",
                        f"{found['pictures']:.1f}",
                        milliseconds(found["last"] / 1000),
                        f"{ASKED['live']:g} a second: {'reached' if good else 'not reached'}",
                    )
                )
        head = ("live mode in a browser", "pictures a second", "from the last move to its picture", "asked")
        parts.append(table(head, rows))
    return parts


def parts_table(found: dict) -> str:
    rows = []
    for part, words in (
        ("step", "a guided step of the U-Net"),
        ("decode", "decoding a picture"),
        ("prompt", "reading a prompt"),
    ):
        entry = found[part]
        ways = entry["ways"]
        fast = ways.get("fast")
        least = entry.get("floor_fast", entry["floor"])
        rows.append(
            (
                words,
                milliseconds(ways["stock"]["seconds"]["median"]),
                milliseconds(fast["seconds"]["median"]) if fast else "",
                times(fast["faster"]) if fast else "",
                f"{entry['floor']['operations'] / 1e9:.2f}",
                f"{least['operations'] / 1e9:.2f}" if "floor_fast" in entry else "",
                milliseconds(least["seconds"]),
                milliseconds(least["memory_seconds"]),
            )
        )
    head = (
        "part",
        "stock",
        "fast",
        "times as fast",
        "GFLOP, stock",
        "GFLOP, fast",
        "floor: operations",
        "bytes, at memory's rate",
    )
    return table(head, rows)


# ---- a GPU -------------------------------------------------------------------------------------------------------


def describe_gpu(report: dict) -> str:
    parts = [machine_line(report)]
    if report["device"] == "cpu":
        parts.append(
            "**Small models on a CPU: this shows that the measurement works, and nothing about a GPU.**"
        )
    rows = []
    for name, model in report["models"].items():
        for way, found in model["ways"].items():
            goal = ""
            if way == "fast" and report["device"] == "cuda":
                goal = f"{model['asked']:g}: {'reached' if found['faster']['median'] >= model['asked'] else 'not reached'}"
            peak = f"{found['peak_bytes'] / 1e9:.1f} GB" if found.get("peak_bytes") else ""
            rows.append(
                (
                    f"{name}, {way}",
                    milliseconds(found["seconds"]["median"]),
                    times(found["faster"]),
                    peak,
                    goal,
                )
            )
    parts.append(table(("a picture", "seconds", "times as fast as stock", "peak memory", "asked"), rows))
    for name, model in report["models"].items():
        floor = model["floor"]
        lines = [f"{name}: {model['setting']}; {floor['operations'] / 1e12:.2f} TFLOP, {milliseconds(floor['seconds'])} at this device's best rate ({floor['precision']}, {report['rates'][floor['precision']] / 1e12:.1f} TFLOP/s)."]  # fmt: skip
        if "first" in model:
            lines.append(
                f"The first picture of speed='fast' took {milliseconds(model['first'])}, compiling included."
            )
        if model.get("t4"):
            lines.append(f"On a T4 with 16 GB: {model['t4']}")
        parts.append(" ".join(lines))
    return "\n\n".join(parts)


def machine_line(report: dict) -> str:
    machine = report["machine"]
    device = (
        machine["gpu"]["name"]
        if "gpu" in machine and report["bench"] == "gpu"
        else f"{machine['processor']}, {machine['threads']} threads"
    )
    versions = machine["versions"]
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "diffusers", "openvino") if versions.get(name)
    )
    return f"{device}; {named}; weights {report.get('weights', 'random')}; commit {machine['commit']}, {machine['date']}."


def describe(report: dict) -> str:
    """One report as Markdown."""
    return {"cpu": describe_cpu, "gpu": describe_gpu}[report["bench"]](report)


# ---- README ------------------------------------------------------------------------------------------------------

NOTHING = "No figures yet: nothing has been measured on a quiet machine since the last change. `python -m bench` measures it."


def reports(folder: Path = RESULTS) -> dict[str, dict]:
    """File name -> report, of all that are in the folder and are not a try."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    }
    return {
        name: report
        for name, report in found.items()
        if report.get("bench") in ("cpu", "gpu") and not report.get("quick")
    }


def section(found: dict[str, dict]) -> str:
    """What stands between the markers."""
    if not found:
        return NOTHING
    lead = (
        "Measured by `python -m bench` (two cores) and `python bench/gpu.py`; written from `bench/results/` by "
        "`python bench/table.py --readme`. Ratios are medians of turns, with 95% intervals."
    )
    return "\n\n".join([lead, *(f"**{name}.** {describe(report)}" for name, report in found.items())])


def between_markers(text: str) -> str:
    """What README.md says now. ValueError where it lacks the markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, once each")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--readme", action="store_true", help="write README.md's section")
    parser.add_argument("--check", action="store_true", help="compare README.md's section")
    args = parser.parse_args(arguments)
    text = section(reports())
    readme = ROOT / "README.md"
    now = readme.read_text(encoding="utf-8")
    if args.check:
        same = between_markers(now) == text
        print("README.md says what the reports say" if same else "run: python bench/table.py --readme")
        return 0 if same else 1
    if not args.readme:
        print(text)
        return 0
    between_markers(now)
    before, _, rest = now.partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
