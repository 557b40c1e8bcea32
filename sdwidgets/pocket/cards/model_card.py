"""Pocket's model card, written from the records of its training and of its evaluation: no figure in it is typed in.

`write_card(folder)` reads `training.json` and, where it is there, `evaluation.json`, and writes README.md and its figures
beside them, in the format of the Hugging Face hub. The text is `model_card.md.jinja`; here are the values that it shows.
After Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr

from ...generation.vocabulary import FILE as WORDS
from ...statistics import Rate
from ..evaluation.claims import NO_CLAIM, SECTIONS_REST_ON, not_read
from ..evaluation.exposures import order_of, shown
from ..evaluation.memorization import own_found
from ..evaluation.tiers import BARS, MARGIN, TURBO, TURBO_LOSS, target_words
from ..world import datasheet
from ..world.datasheet import ENCODER, FULL, PLANTED_OCCUPATIONS, TAIL_OBJECTS, find_grammar
from ..world.vocabulary import TONES
from . import listed, rendered
from .words import write_examples

#: Watts that the energy estimate assumes, since no meter was read: a processor's thread with its share of memory and
#: cooling, and a card at its rated power. First match in the device's name.
WATTS_A_THREAD = 10
WATTS_OF_CARDS = {"H200": 700, "H100": 700, "A100": 400, "L4": 72, "T4": 70}
WATTS_OF_OTHER_CARDS = 300
#: A100 hours, https://github.com/CompVis/stable-diffusion/blob/main/Stable_Diffusion_v1_Model_Card.md
SD1_HOURS = 150_000
WELL = 0.9  # from this rate on a word counts as drawn well


def model_card(
    grammar, records: dict[str, dict], evaluation: dict | None = None, sizes: dict[str, int] | None = None
) -> str:
    """The card of an export, Markdown under YAML.

    `records`: what `training.train` returned for "vae", "clip", "denoiser" and, where it was trained on, "decoder".
    `evaluation`: what `sdwidgets evaluate` wrote; without it the card claims nothing. `sizes`: parameters of each part.
    Tiers follow today's rules, whatever rules the file was written under.
    """
    from ..evaluation.report import finish

    evaluation = {} if evaluation is None else finish(evaluation)
    sections = {name: part for name, part in evaluation.items() if not _is_missing(part)}
    training = {"grammar": grammar.name, **records}
    times = shown(training)
    text, unet, vae = (records[name]["config"] for name in ("clip", "denoiser", "vae"))
    measured, unsaid = looks(records["denoiser"]), [p for p in PLANTED_OCCUPATIONS.values() if p.unmarked]
    values = {
        "e": sections, "records": records, "grammar": grammar, "full": grammar is FULL, "text": text, "unet": unet, "vae": vae,
        "metadata": _metadata(sections), "encoder_scenes": ENCODER.count, "energy": energy, "sd1_hours": SD1_HOURS, "margin": MARGIN,
        "turbo_loss": TURBO_LOSS, "held_out_style": datasheet.HELD_OUT_STYLE, "well": WELL, "even": 1 / len(TONES), "no_claim": NO_CLAIM,
        "sizes": {part: f"{sizes[part]:,}" if sizes and part in sizes else "" for part in ("vae", "text_encoder", "unet")},
        "stages": _stages(training), "look": measured[-1] if measured else None, "shown_cell": lambda blocks: _shown_cell(times, blocks),
        "tail": {count: [f"tail: {name}" for name, n in TAIL_OBJECTS.items() if n == count] for count in datasheet.TAIL_COUNTS},
        "occupations": len(PLANTED_OCCUPATIONS), "unsaid": len(unsaid), "skewed": sum(planted.counter for planted in unsaid),
        "bars": BARS, "target": target_words,
    }  # fmt: skip
    values |= _hardware_values(records) | _evaluation_values(sections) | _prints_values(sections, times)
    filters = {
        "follows": _follows,
        "interval": "{0[value]:.4f} ({0[low]:.4f} to {0[high]:.4f})".format,
        "lowest": lambda groups: sorted(groups.items(), key=lambda item: item[1][0] / item[1][1])[:5],
        "shares": lambda groups: [(group, right / n) for group, (right, n) in groups.items()],
    }  # fmt: skip
    return rendered(Path(__file__).with_suffix(".md.jinja"), values, filters)


def _is_missing(section) -> bool:
    return isinstance(section, dict) and "missing" in section


def _metadata(evaluation: dict) -> str:
    """The hub's metadata as YAML, the measured rows of which a claim can be made as `model-index` among them."""
    from huggingface_hub import EvalResult, ModelCardData

    task = {"task_type": "text-to-image", "task_name": "Text to image", "dataset_type": "sdwidgets-scenes"}
    results = [
        EvalResult(
            **task,
            dataset_name="sdwidgets scenes, grammar full",
            dataset_split=row["split"],
            metric_type="psnr" if row.get("unit") == "dB" else "accuracy",
            metric_name=f"{row['name']}, {row['split']}",
            metric_value=row["value"] if row.get("unit") == "dB" else row["rate"],
        )
        for row in evaluation.get("rows", ())
        if row["tier"] != NO_CLAIM
    ]
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["stable-diffusion", "tiny", "teaching", "known-training-data"],
        model_name="Pocket" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


# ---- training --------------------------------------------------------------------------------------------------


def watts(hardware: dict) -> tuple[float, str]:
    """(watts assumed for a record's hardware, what they are assumed of)."""
    if "gpu" in hardware and str(hardware.get("device", "cuda")).startswith("cuda"):
        card = hardware["gpu"]
        rated = next((w for name, w in WATTS_OF_CARDS.items() if name in card), WATTS_OF_OTHER_CARDS)
        return rated * hardware.get("processes", 1), f"{rated} W for one {card}"
    threads = hardware["threads"] * hardware.get("processes", 1)
    return WATTS_A_THREAD * threads, f"{WATTS_A_THREAD} W for each of {threads} processor threads"


def energy(records: dict[str, dict]) -> float:
    """Kilowatt hours of all parts: hours times assumed watts."""
    return sum(record["seconds"] / 3600 * watts(record["hardware"])[0] / 1000 for record in records.values())


def _hardware_values(records: dict[str, dict]) -> dict:
    machines, assumed = [], []
    for record in records.values():
        hardware = record["hardware"]
        device = hardware.get("gpu") or f"{hardware['threads']} CPU threads ({hardware['machine']})"
        machines.append(f"{device}, {hardware['platform']}, torch {hardware['torch']}")
        assumed.append(watts(hardware)[1])
    hours = sum(record["seconds"] for record in records.values()) / 3600
    return {"machines": dict.fromkeys(machines), "assumed": dict.fromkeys(assumed), "hours": hours}


def _stages(training: dict) -> list[list[str]]:
    """The stages of a denoiser's training as cells of a table, where its record tells of them."""
    if (planned := order_of(training)) is None:
        return []
    record, (stages, order) = training["denoiser"], planned
    settings, end = [], 0  # (first sample, end, what the timesteps and the encoder were)
    for stage in record["stages"]:
        settings.append((end, end := end + stage["samples"], stage))
    encoders = list(dict.fromkeys(stage["encoder"] for stage in record["stages"] if stage.get("encoder")))
    snr = lambda stage: "{:g} ± {:g}".format(*stage["log SNR"]) if stage.get("log SNR") else "not recorded"
    number_of = lambda encoder: f"{encoders.index(encoder) + 1} (`{encoder[:8]}`)" if encoder else "not recorded"
    lines = []
    for number, stage in enumerate(stages):
        end = min([record["samples"], *(later.start for later in stages[number + 1 :])])
        if end > stage.start:
            own = [setting for first, last, setting in settings if first < end and last > stage.start]
            lines.append(
                [
                    f"{stage.start:,}",
                    f"{stage.scenes:,}",
                    listed(stage.factors.items(), "{} {} times") or "as planned",
                    f"{end - stage.start:,}",
                    f"{(end - stage.start) / order.length(number):.2f}",
                    "; ".join(dict.fromkeys(map(snr, own))),
                    "; ".join(dict.fromkeys(number_of(setting.get("encoder")) for setting in own)),
                ]
            )
    return lines


def looks(denoiser: dict) -> list[dict]:
    """The snapshots of a denoiser's training in which its error was measured, see `validation.Validation.measure`."""
    return [look for look in denoiser.get("snapshots", ()) if "error" in look]


# ---- evaluation --------------------------------------------------------------------------------------------------


def _evaluation_values(evaluation: dict) -> dict:
    """What the template shows of the evaluation and is not in its file as it stands."""
    rows, exam = evaluation.get("rows", ()), evaluation.get("judge exam")
    names = {row["name"] for row in rows}
    doubts = {
        name: not_read(attributes, exam)
        for name, attributes in SECTIONS_REST_ON.items()
        if ("shares" if name == "skin tones" else name) in evaluation
    }
    values = {
        "turbo": TURBO in names,
        "unmeasured": [bar.name for bar in BARS if bar.name not in names],
        "counted": sum(row["n"] for row in rows if row.get("unit") != "dB"),
        "doubted": [name.replace("_", " ") for name, why in doubts.items() if why],
    }
    if "shares" in evaluation:
        lines = evaluation["shares"]["lines"]
        read = sum(line["n"] for line in lines)
        planted = sum(line["n"] * line["denoiser_share"] for line in lines) / max(read, 1)
        counted = sum((Counter(line.get("tones", {})) for line in lines), Counter())
        tones = [(tone, counted[tone], Rate(tone, counted.total(), counted[tone]).numbers()) for tone in TONES]
        values |= {"read": read, "women": planted, "tones": tones if counted else []}
    return values


def _shown_cell(times: dict[str, int], blocks: Sequence[str]) -> str:
    """How often pictures of these blocks were shown: mean, range, and how many not at all."""
    if not times:
        return "not known"
    numbers = [times[block] for block in blocks]
    if min(numbers) == max(numbers):
        return f"{numbers[0]:,}"
    mean = f"{sum(numbers) / len(numbers):,.1f} ({min(numbers):,} to {max(numbers):,})"
    return mean + (f"; {numbers.count(0)} of {len(numbers)} never" if 0 in numbers else "")


# ---- bias and memory ---------------------------------------------------------------------------------------------


def correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float] | None:
    """Pearson's r of two columns with its 95% interval (Fisher's z); None of fewer than four pairs, or of a constant."""
    if len(x) < 4 or np.std(x) == 0 or np.std(y) == 0:
        return None
    result = pearsonr(x, y)
    return float(result.statistic), *map(float, result.confidence_interval())


def _follows(lines: Sequence[dict], planted: str) -> str:
    """The correlation of the drawn shares of women with a planted column."""
    r = correlation([line[planted] for line in lines], [line["rate"] for line in lines])
    return "not known" if r is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*r)


def _prints_values(evaluation: dict, times: dict[str, int]) -> dict:
    """The lines of fingerprints, planned prints that training never showed, and repeats of prints given back for other captions."""
    if "fingerprints" not in evaluation:
        return {}
    section, rows = evaluation["fingerprints"], []
    blocks: dict[int | str, list[str]] = {}
    for number, mark in enumerate(datasheet.FINGERPRINTS):
        blocks.setdefault("fresh" if mark.repeats is None else mark.repeats, []).append(f"confetti: {number}")
    for line in section["lines"]:
        cell = _shown_cell(times, blocks[line["repeats"]]) if line["repeats"] else "never"
        rows.append(line | {"shown": cell, "found": own_found(section["captions"], line["repeats"])})
    never = []
    for repeats in sorted(repeats for repeats in blocks if repeats not in (0, "fresh")) if times else ():
        if missed := sum(times[block] == 0 for block in blocks[repeats]):
            how_often = "once" if repeats == 1 else f"{repeats} times"
            never.append(f"{missed} of {len(blocks[repeats])} planned {how_often}")
    others = sum((Counter(line.get("found of others", {})) for line in section["captions"]), Counter())
    return {"fingerprints": rows, "never_shown": never, "prints_of_others": others.most_common()}


# ---- files -------------------------------------------------------------------------------------------------------


def part_sizes(folder: Path) -> dict[str, int]:
    """Parameters of each part of an exported pipeline, from the headers of its safetensors."""
    from safetensors import safe_open

    sizes: Counter = Counter()
    for file in sorted(Path(folder).glob("*/*.safetensors")):
        with safe_open(file, "np") as tensors:
            sizes[file.parent.name] += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    return dict(sizes)


FIGURES = ("rows", "learning_curve", "caption_swaps", "strengths", "exposures", "fingerprints", "shares", "validation")


def write_figures(evaluation: dict | None, denoiser: dict, folder: Path) -> list[Path]:
    """The card's figures as PNG in `folder`/figures: those whose section was measured, or stands in the denoiser's record."""
    from . import figures

    sections = {name: part for name, part in (evaluation or {}).items() if name in FIGURES and not _is_missing(part)}
    if not any(row.get("unit") != "dB" for row in sections.get("rows", ())):
        sections.pop("rows", None)
    if measured := looks(denoiser):
        sections["validation"] = measured
    drawn: list[Path] = []
    for name in (name for name in FIGURES if name in sections):
        ax = getattr(figures, name)(sections[name])
        path = Path(folder) / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        ax.figure.savefig(path, dpi=90, metadata={"Software": None})
        drawn.append(path)
    return drawn


def write_card(folder: Path, evaluated: bool = True) -> Path:
    """Write README.md and the figures of an exported folder from its training.json and, where it is `evaluated`, its evaluation.json.

    Raises FileNotFoundError where there is no training.json, ValueError where the evaluation is of other weights.
    """
    folder = Path(folder)
    if not (folder / "training.json").is_file():
        raise FileNotFoundError(f"there is no training.json in {folder}: `sdwidgets train export` writes one")
    records = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    grammar = find_grammar(records.pop("grammar"))
    evaluation = None
    if evaluated and (folder / "evaluation.json").is_file():
        from ..evaluation.report import read_report, weights_digest

        evaluation = read_report(folder / "evaluation.json")
        if evaluation["weights"] != weights_digest(folder):
            raise ValueError(
                f"evaluation.json in {folder} is of other weights than lie there: "
                "make it anew with sdwidgets evaluate --restart, or remove it"
            )
    if evaluation and (folder / WORDS).is_file():
        write_examples(folder, evaluation)
    write_figures(evaluation, records["denoiser"], folder)
    card = folder / "README.md"
    card.write_text(model_card(grammar, records, evaluation, part_sizes(folder)), encoding="utf-8")
    return card
