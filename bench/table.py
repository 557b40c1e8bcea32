"""Reports as tables for people: docs/performance.md, and the README's few figures, are written from them.

python bench/table.py                  # every report in bench/results
python bench/table.py --write          # write docs/performance.md, and what stands between the markers of README.md
python bench/table.py --check          # exit 1 where those are not what the reports say
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a file, from anywhere
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- performance: written by bench/table.py -->", "<!-- end of performance -->"

Row = tuple[str, ...]
NOT_MEASURED = "not measured"
BUSY = 0.5  # load at the start from which on a machine was not quiet


def table(head: Row, rows: list[Row]) -> str:
    """A Markdown table; the first column is left, numbers are right."""
    rules = "|" + "|".join("-" if column == 0 else "-:" for column in range(len(head))) + "|"
    return "\n".join([f"| {' | '.join(head)} |", rules, *(f"| {' | '.join(row)} |" for row in rows)])


def milliseconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def times(found: dict) -> str:
    """A ratio and its interval, 3.97 (3.91 to 4.05)."""
    low, high = found["interval"]
    return f"{found['median']:.2f} ({low:.2f} to {high:.2f})"


def percent(found: dict) -> str:
    """What is added by a way that takes so many times as long: 1.9% (1.6 to 2.3)."""
    low, high = (100 * (edge - 1) for edge in found["interval"])
    return f"{100 * (found['median'] - 1):.1f}% ({low:.1f} to {high:.1f})"


def spread(found: dict) -> str:
    """A median and its quartiles, of seconds: 627 ms (610 ms to 650 ms)."""
    low, high = found["quartiles"]
    return f"{milliseconds(found['median'])} ({milliseconds(low)} to {milliseconds(high)})"


def verdict(median: float, interval, limit: float, *, at_most: bool = False, unit: str = "") -> str:
    """What is asked, and whether it is met: judged by the bad end of the interval. "4: not shown": the median alone meets it."""
    low, high = interval or (median, median)
    bad = max(high, median) if at_most else min(low, median)
    met, median_met = (bad <= limit, median <= limit) if at_most else (bad >= limit, median >= limit)
    return f"{limit:g}{unit}: {'reached' if met else 'not shown' if median_met else 'not reached'}"


def added(found: dict, limit: float) -> str:
    """The verdict on what a way adds, from how many times as long it takes."""
    low, high = (100 * (edge - 1) for edge in found["interval"])
    return verdict(100 * (found["median"] - 1), (low, high), limit, at_most=True, unit="%")


# ---- two cores ---------------------------------------------------------------------------------------------------

WAYS = ("stock", "exact", "fast", "turbo", "turbo, fast")  # that a report should have


def ways_rows(ways: dict, asked: dict, floors: dict | None = None) -> list[Row]:
    """Way, seconds, times as fast, floor, seconds as a multiple of the floor, asked; also the ways that are missing."""
    rows = []
    for name in [*ways, *(name for name in WAYS if name not in ways)]:
        if name not in ways:
            rows.append((name, NOT_MEASURED, "", "", "", f"{asked[name]:g}" if name in asked else ""))
            continue
        found, least = ways[name], (floors or {}).get(name)
        rows.append(
            (
                name,
                spread(found["seconds"]),
                times(found["faster"]),
                milliseconds(least["seconds"]) if least else NOT_MEASURED,
                f"{found['seconds']['median'] / least['seconds']:.1f}" if least else "",
                verdict(found["faster"]["median"], found["faster"]["interval"], asked[name]) if name in asked else "",
            )
        )
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
    "on a GPU": 2.0,
}
#: sections of a whole report, and of its second pass
SECTIONS = ("pictures", "parts", "agreement", "recording", "batches", "startup", "memory", "lab", "live", "choices", "many")  # fmt: skip
CHILDS = SECTIONS[:5]


def describe_cpu(report: dict, weights: str | None = None) -> str:
    """`weights`: the digest of those that data/pocket has now, to compare the report's with; None: not compared."""
    parts = [machine_line(report)]
    if report.get("quick"):
        parts.append("**A try with one turn of everything: these figures mean nothing.**")
    if weights and report["model"] == "pocket" and report["weights"] != weights:
        parts.append(
            f"**These are figures of other weights ({report['weights']}) than `data/pocket` has now ({weights}).**"
        )
    load = (report["machine"].get("load_average") or [0.0])[0]
    if load > BUSY:
        parts.append(
            f"**The machine was busy when this began (load {load:.1f}): times are too long, and what uses both cores suffers most.**"
        )
    parts += passes(report) + missing(report, SECTIONS)
    child = report.get("avx2") or {}
    if not measured(child):
        told = child.get("left_out") or child.get("error") or ""
        parts.append(f"The same with AVX2 only: {NOT_MEASURED}{'; ' * bool(told)}{told}.")
    else:
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
        parts += passes(child) + missing(child, CHILDS)
    return "\n\n".join(parts)


def measured(found: dict | None) -> bool:
    """Whether a section, or a pass, holds figures."""
    return bool(found) and "left_out" not in found and ("error" not in found or "machine" in found)


def missing(report: dict, sections: tuple[str, ...]) -> list[str]:
    """A sentence on each section without figures, why where that is known."""
    told = []
    for name in sections:
        found = report.get(name) or {}
        if not measured(found):
            why = f" (failed: {found['error']})" if "error" in found else f" ({found['left_out']})" if "left_out" in found else ""  # fmt: skip
            told.append(name + why)
    failure = [f"**{report['error']}.**"] if "error" in report else []
    return [f"{NOT_MEASURED.capitalize()}: {'; '.join(told)}."] * bool(told) + failure


def passes(report: dict) -> list[str]:
    """The tables of one pass, of the sections that have figures."""
    report = {name: found for name, found in report.items() if not isinstance(found, dict) or measured(found)}
    parts = []
    floors = report.get("parts", {}).get("floors")
    if "pictures" in report:
        head = (f"{report['steps']} guided steps, 128x128", "a picture (quartiles)", "times as fast as stock", "floor", "times its floor", "asked")  # fmt: skip
        parts.append(table(head, ways_rows(report["pictures"]["ways"], ASKED, floors)))
    if floors:
        rates, precision = report["parts"]["rates"], floors["stock"]["precision"]
        parts.append(
            f"Floors are operations at this machine's best rate, {rates[precision] / 1e9:.0f} GFLOP/s in {precision}: a picture takes "
            f"{floors['stock']['operations'] / 1e9:.1f} GFLOP as stock computes it and {floors['fast']['operations'] / 1e9:.1f} as fast does "
            f"({floors['stock']['bytes'] / 1e6:,.0f} and {floors['fast']['bytes'] / 1e6:,.0f} MB moved), turbo's "
            f"{floors['turbo']['operations'] / 1e9:.1f} and {floors['turbo, fast']['operations'] / 1e9:.1f}. "
            "What has no arithmetic has no floor: recording, start-up and the browser are dispatch."
        )
    parts += agreement_lines(report.get("agreement", {}))
    if "parts" in report:
        parts.append(parts_table(report["parts"]))
    if "recording" in report:
        rows = []
        for pipe, ways in report["recording"].items():
            for way in ("recorded", "recorded, previews"):
                rows.append((f"{pipe}, {way}", spread(ways[way]["seconds"]), percent(ways[way]["times"]), "none: dispatch", added(ways[way]["times"], ASKED[way])))  # fmt: skip
        head = ("recording, until the trace is on the host", "a run (quartiles)", "added to a run", "floor", "asked")  # fmt: skip
        parts.append(table(head, rows))
    if "batches" in report:
        found = report["batches"]["pictures_a_second"]
        sizes = list(next(iter(found.values())))
        rows = [
            (
                name,
                *(
                    f"{by_size[size]['median']:.2f} ({by_size[size]['quartiles'][0]:.2f} to {by_size[size]['quartiles'][1]:.2f})"
                    for size in sizes
                ),
                f"{1 / floors[name]['seconds']:.1f}" if floors and name in floors else NOT_MEASURED,
            )
            for name, by_size in found.items()
        ]
        parts.append(table(("pictures a second, drawn at once:", *sizes, "at most, by the floor of one"), rows))
    for section, head in (
        ("startup", "start-up, in fresh processes"),
        ("lab", "from `jupyter lab` to a slider that moves the picture"),
    ):
        if section in report:
            rows = [(name, milliseconds(found["median"]), milliseconds(found["least"]), milliseconds(found["most"])) for name, found in report[section].items()]  # fmt: skip
            parts.append(table((head, "median", "least", "most"), rows))
    if "memory" in report:
        found = report["memory"]
        goal = verdict(100 * found["growth"], [100 * edge for edge in found["interval"]] if "interval" in found else None, ASKED["memory"], at_most=True, unit="%")  # fmt: skip
        parts.append(
            f"Memory over {found['runs']:,} runs in one Playground: {100 * found['growth']:+.1f}% in the last fifth against the second tenth; "
            f"asked: at most {goal}."
        )
    if "live" in report:
        parts.append(live_table(report["live"], floors))
    if "choices" in report:
        found = report["choices"]
        rows = [(name, spread(way["seconds"]), times(way["faster"]), f"{100 * found['differs'][name]:.2g}%") for name, way in found["ways"].items()]  # fmt: skip
        rows += [(name, NOT_MEASURED, "", why) for name, why in found["missing"].items()]
        parts.append(
            table(
                ("a guided step of the U-Net by", "time (quartiles)", "times as fast", "differs from the first by"),
                rows,
            )
        )
    if "many" in report:
        found = report["many"]
        held = found["resident"]
        sentence = (
            f"{found['pictures']} pictures into files by `generate`: {found['a_second']:.2f} a second, {found['chosen']} at once as chosen by "
            f"itself; memory at the end {100 * (held['the end'] / held['a tenth'] - 1):+.1f}% against a tenth of the way, "
            f"{100 * (held['the end'] / held['half'] - 1):+.1f}% against half."
        )
        for count, one in found["processes"].items():
            rate = f", {one['a_second']:.2f} a second once started" if one["a_second"] else ""
            sentence += f" {count} {'process' if count == '1' else 'processes'} on {one['threads']} {'thread' if one['threads'] == 1 else 'threads'}: {one['pictures']} in {milliseconds(one['seconds'])}{rate}."
        parts.append(sentence)
    return parts


def agreement_lines(found: dict) -> list[str]:
    """Exact against stock, and fast against exact, each in a sentence."""
    lines = []
    if same := found.get("exact_is_stock"):
        other = "" if same["by_itself"] == same["dtype"] else f" at dtype={same['dtype']!r} (by itself `load` chooses {same['by_itself']} on this processor)"  # fmt: skip
        lines.append(
            f"Exact is stock bit for bit in {same['equal']} of {same['pictures']} pictures{other}: {'reached' if same['equal'] == same['pictures'] else 'not reached'}."
        )
    if "decibels" in found:
        low, high = found["interval"]
        lines.append(
            f"Fast and exact agree to {found['decibels']['median']:.1f} dB ({low:.1f} to {high:.1f}) at the median of {found['pictures']} "
            f"pictures, {found['decibels']['least']:.1f} dB at the worst; asked: {verdict(found['decibels']['median'], found['interval'], ASKED['agreement'], unit=' dB')}."
        )
    elif same:
        lines.append(f"Fast against exact: {NOT_MEASURED}.")
    return lines


def live_table(live: dict, floors: dict | None) -> str:
    rows = []
    for name, hands in live.items():
        least = (floors or {}).get(f"{name}, same prompt again")
        for hand, found in hands.items():
            age = found.get("age")
            rows.append(
                (
                    f"{name}, {hand}",
                    f"{found['pictures']:.1f}",
                    milliseconds(found["last"] / 1000),
                    verdict(found["pictures"], found.get("interval"), ASKED["live"], unit=" a second"),
                    f"{age['median']:.0f} ms" if age else NOT_MEASURED,
                    f"{age['most']:.0f} ms" if age else NOT_MEASURED,
                    str(found.get("on_the_way", NOT_MEASURED)),
                    f"{milliseconds(least['seconds'])}, then dispatch" if least else "none: dispatch",
                )
            )
    head = (
        "live mode in a browser",
        "pictures a second",
        "from the last move to its picture",
        "asked",
        "age of a picture",
        "at most",
        "orders on the way, at most",
        "floor of a picture",
    )
    return table(head, rows)


def parts_table(found: dict) -> str:
    rows = []
    for part, words in (
        ("step", "a guided step of the U-Net"),
        ("decode", "decoding a picture"),
        ("prompt", "reading a new prompt"),
    ):
        entry = found[part]
        ways = entry["ways"]
        fast = ways.get("fast")
        stock, least = entry["floor"], entry.get("floor_fast", entry["floor"])
        rows.append(
            (
                words,
                spread(ways["stock"]["seconds"]),
                spread(fast["seconds"]) if fast else NOT_MEASURED,
                times(fast["faster"]) if fast else "",
                f"{stock['operations'] / 1e9:.2f}, {least['operations'] / 1e9:.2f}",
                f"{stock['bytes'] / 1e6:.0f}, {least['bytes'] / 1e6:.0f}" if "bytes" in least else "",
                f"{milliseconds(stock['seconds'])}, {milliseconds(least['seconds'])}",
                milliseconds(least["memory_seconds"]),
            )
        )
        again = ways.get("fast, same prompt again")
        if again:
            rows.append(("reading the same prompt again", "", spread(again["seconds"]), times(again["faster"]), "none: remembered", "", "none: dispatch", ""))  # fmt: skip
    head = (
        "part",
        "stock (quartiles)",
        "fast (quartiles)",
        "times as fast",
        "GFLOP: stock, fast",
        "MB: stock, fast",
        "floor: stock, fast",
        "fast's bytes, at memory's rate",
    )
    return table(head, rows)


# ---- a GPU -------------------------------------------------------------------------------------------------------


def describe_gpu(report: dict) -> str:
    parts = [machine_line(report)]
    cuda = report["device"] == "cuda"
    if not cuda:
        parts.append("**Small models on a CPU: this shows that the measurement works, and nothing about a GPU.**")
    models = {name: model for name, model in report["models"].items() if measured(model)}
    rows = []
    for name, model in models.items():
        least = model["floor"]["seconds"]
        for way, found in model["ways"].items():
            on_top = model["on_top_of_fast"].get(way)
            goal = ""
            if way == "fast" and cuda:
                goal = verdict(found["faster"]["median"], found["faster"]["interval"], model["asked"])
                goal += f"; aim {milliseconds(model['aim'])}: {'reached' if found['seconds']['quartiles'][1] <= model['aim'] else 'not reached'}"
            elif on_top:
                goal = f"{percent(on_top)} on top of fast" + (f"; {added(on_top, ASKED['on a GPU'])}" if cuda else "")
            peak = f"{found['peak_bytes'] / 1e9:.1f} GB" if found.get("peak_bytes") else ""
            if found.get("reserved_bytes"):
                peak += f" ({found['reserved_bytes'] / 1e9:.1f} GB reserved)"
            rows.append(
                (
                    f"{name}, {way}",
                    spread(found["seconds"]),
                    times(found["faster"]),
                    f"{found['seconds']['median'] / least:.1f}",
                    peak,
                    goal,
                )
            )
    if rows:
        head = ("a picture", "seconds (quartiles)", "times as fast as stock", "times the floor", "peak memory", "asked")  # fmt: skip
        parts.append(table(head, rows))
    for name, model in models.items():
        floor = model["floor"]
        lines = [f"{name}: {model['setting']}; {floor['operations'] / 1e12:.2f} TFLOP, {milliseconds(floor['seconds'])} at this device's best rate ({floor['precision']}, {report['rates'][floor['precision']] / 1e12:.1f} TFLOP/s); {floor['bytes'] / 1e9:.1f} GB moved, {milliseconds(floor['memory_seconds'])} at its memory's."]  # fmt: skip
        if "first" in model:
            lines.append(f"The first picture of speed='fast' took {milliseconds(model['first'])}, compiling included.")
        same = model["agreement"]
        lines.append(
            f"Fast and stock agree to {same['decibels']:.1f} dB."
            if same["finite"]
            else "**A picture holds what is no number.**"
        )
        if model.get("t4"):
            lines.append(f"On a T4 with 16 GB: {model['t4']}")
        parts.append(" ".join(lines))
    return "\n\n".join(parts + missing(report["models"], tuple(report["models"])))


# ---- training ----------------------------------------------------------------------------------------------------


def training_table(rows: list[dict]) -> str:
    """What was tried to train faster: what we expected of each change and what was measured, each against its part's first row."""
    head = ("part, change", "expected", "measured", "samples a second (quartiles)")
    lines = []
    for row in rows:
        low, high = row["quartiles"]
        rate = f"{row['samples_per_second']:g} ({low:g} to {high:g})"
        lines.append((f"{row['part']}: {row['change']}", row["expected"], f"{row['ratio']:.2f}", rate))
    return table(head, lines)


#: What is said of compiled rows that were measured on a CPU, before `training.check_compiled` refused them.
COMPILED = (
    '**The rows that say "compiled", and "the same" after one of them, are no advice**: compiled for a CPU in bfloat16, as Pocket\'s U-Net was trained, '
    "a nearest upsampling can hand back gradients of zero, and what lies before it is never trained. In float32, as here, none was found "
    "wrong, but next to nothing was gained. `sdwidgets train` compiles on CUDA alone."
)


def describe_training(report: dict) -> str:
    busy = (report["machine"]["load_average"] or [0])[0]
    parts = [
        machine_line(report),
        f"**The machine was busy when this began (load {busy:.1f}).**" if busy > BUSY else "",
        f"What makes training faster (`python bench/training.py`): medians of {report['turns']} steps, the changes taking turns. What we expected "
        "was written down before. An autoencoder's sample is a crop of 64 pixels.",
        COMPILED
        if "gpu" not in report["machine"] and any("compiled" in row["change"] for row in report["rows"])
        else "",
        training_table(report["rows"]),
    ]
    return "\n\n".join(part for part in parts if part)


def machine_line(report: dict) -> str:
    machine = report["machine"]
    device = (
        machine["gpu"]["name"]
        if "gpu" in machine and report["bench"] == "gpu"
        else f"{machine['processor']}, {machine['threads']} threads"
    )
    versions = machine["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "openvino") if versions.get(name))
    weights = "" if report["bench"] == "training" else f" weights {report.get('weights', 'random')};"
    return f"{device}; {named};{weights} commit {machine['commit']}, {machine['date']}."


def describe(report: dict, weights: str | None = None) -> str:
    """One report as Markdown; `weights` as in `describe_cpu`."""
    if report["bench"] == "training":
        return describe_training(report)
    return describe_gpu(report) if report["bench"] == "gpu" else describe_cpu(report, weights)


# ---- pages ------------------------------------------------------------------------------------------------------

NOTHING = (
    "No figures yet: nothing has been measured on a quiet machine since the last change. `make bench` measures it."
)


def reports(folder: Path = RESULTS) -> dict[str, dict]:
    """File name -> report, of all that are in the folder and are not a try; training last, which fewer ask about."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {
        name: report
        for name, report in sorted(found.items(), key=lambda item: item[1].get("bench") == "training")
        if report.get("bench") in ("cpu", "gpu", "training") and not report.get("quick")
    }


@functools.cache
def weights_now() -> str | None:
    """The digest of the weights in data/pocket; None where there are none."""
    from bench.harness import digest

    folder = ROOT / "data" / "pocket"
    return digest(folder) if folder.is_dir() else None


def page(found: dict[str, dict], weights: str | None = None) -> str:
    """docs/performance.md. `weights`: by default those that data/pocket has now."""
    if not found:
        return NOTHING
    lead = (
        "Measured by `python -m bench` (two cores), `python bench/gpu.py` and `python bench/training.py`; written from `bench/results/` by "
        "`python bench/table.py --write`. Times are medians with quartiles; ratios are medians of turns, with 95% intervals, and "
        "count as reached where the worse end of the interval does, as not shown where only the median does."
    )
    weights = weights or weights_now()
    return (
        "\n\n".join(
            ["# Performance", lead, *(f"## {name}\n\n{describe(report, weights)}" for name, report in found.items())]
        )
        + "\n"
    )


def figures(found: dict[str, dict]) -> str:
    """What the README tells: how much faster, and what recording adds, of the first report that has both."""
    report = next(
        (
            report
            for report in found.values()
            if measured(report.get("pictures")) and measured(report.get("recording"))
        ),
        None,
    )
    if report is None:
        return NOTHING
    ways, run = report["pictures"]["ways"], report["recording"]["fast"]["recorded"]
    return "\n".join(
        (
            f"On {machine_line(report).partition(';')[0]}, with 95% intervals:",
            "",
            f'- `load(speed="fast")` draws the same picture, up to rounding, {times(ways["fast"]["faster"])} times as fast as stock diffusers;',
            f"- with `turbo=True`, in four steps, {times(ways['turbo, fast']['faster'])} times as fast: a picture every {milliseconds(ways['turbo, fast']['seconds']['median'])};",
            f"- recording every step of a fast run adds {percent(run['times'])} to it.",
        )
    )


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
    found, readme = reports(), ROOT / "README.md"
    text, short, now = page(found), figures(found), readme.read_text(encoding="utf-8")
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
