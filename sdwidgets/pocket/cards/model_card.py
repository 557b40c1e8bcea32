"""Pocket's model card, written from the records of its training and of its evaluation: no figure in it is typed in.

`write_card(folder)` reads `training.json` and, where it is there, `evaluation.json`, and writes README.md and its figures
beside them, in the format of the Hugging Face hub. After Mitchell et al. 2019, "Model Cards for Model Reporting"
(arXiv 1810.03993).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...statistics import Rate
from ..evaluation.claims import NO_CLAIM, SECTIONS_REST_ON, not_read
from ..evaluation.exposures import order_of, shown
from ..evaluation.memorization import own_found
from ..evaluation.tiers import BARS, BELOW, MARGIN, TURBO, TURBO_LOSS, target_words
from ..world.datasheet import (
    ENCODER,
    FINGERPRINTS,
    FULL,
    HELD_OUT_STYLE,
    PLANTED_OCCUPATIONS,
    TAIL_OBJECTS,
    find_grammar,
)
from ..world.vocabulary import TONES

#: Watts that the energy estimate assumes, since no meter was read: a processor's thread with its share of memory and
#: cooling, and a card at its rated power. First match in the device's name.
WATTS_A_THREAD = 10
WATTS_OF_CARDS = {"H200": 700, "H100": 700, "A100": 400, "L4": 72, "T4": 70}
WATTS_OF_OTHER_CARDS = 300
SD1_HOURS = (
    150_000  # A100 hours, https://github.com/CompVis/stable-diffusion/blob/main/Stable_Diffusion_v1_Model_Card.md
)

CITATION = """@software{sdwidgets,
  author = {{The sdwidgets authors}},
  title = {sdwidgets: a course on Stable Diffusion that runs on a laptop},
  license = {Apache-2.0}
}"""


def model_card(
    grammar, records: dict[str, dict], evaluation: dict | None = None, sizes: dict[str, int] | None = None
) -> str:
    """The card of an export, Markdown under YAML.

    `records`: what `training.train` returned for "vae", "clip", "denoiser" and, where it was trained on, "decoder". `evaluation`: what `sdwidgets evaluate`
    wrote; without it the card claims nothing. `sizes`: parameters of each part. Tiers are told by today's rules, whatever rules the
    file was written under.
    """
    if evaluation is not None:
        from ..evaluation.report import finish

        evaluation = finish(evaluation)
    training = {"grammar": grammar.name, **records}
    seen = shown(training)
    parts = (
        _metadata(evaluation),
        _opening(evaluation),
        _anatomy(records, sizes or {}),
        _use(),
        _data(grammar, records["denoiser"]),
        _training(training),
        _evaluation(evaluation),
        _limits(evaluation, seen),
        _bias(grammar, evaluation, seen),
        _memory(evaluation, seen),
        _end(),
    )
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


# ---- the YAML --------------------------------------------------------------------------------------------------


def _metadata(evaluation: dict | None) -> str:
    """The hub's metadata, the measured rows of which a claim can be made as `model-index` among them."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-to-image",
            task_name="Text to image",
            dataset_type="sdwidgets-scenes",
            dataset_name="sdwidgets scenes, grammar full",
            dataset_split=row["split"],
            metric_type="psnr" if row.get("unit") == "dB" else "accuracy",
            metric_name=f"{row['name']}, {row['split']}",
            metric_value=_value(row),
        )
        for row in (evaluation or {}).get("rows", ())
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
    return f"---\n{data.to_yaml()}\n---"


# ---- the text --------------------------------------------------------------------------------------------------


def _opening(evaluation: dict | None) -> str:
    return f"""# Pocket

A real and very small Stable Diffusion, trained from scratch on drawn scenes, every one of which is known. It stands in the
sdwidgets course beside the large models, wherever a claim about training data should be checked against the truth.
{_tier_sentence(evaluation)}

```python
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("data/pocket")  # or sdwidgets.load()
```"""


def _tier_sentence(evaluation: dict | None) -> str:
    if evaluation is None:
        return "**It has not been evaluated yet, so nothing is claimed of its pictures.**"
    tier, rows = evaluation["tier"], evaluation["rows"]
    doubted = _unclaimed(evaluation)
    if tier is None:
        measured = {row["name"] for row in rows}
        missing = [bar.name for bar in BARS if bar.name not in measured]
        text = "**No tier is claimed**; the rows that were measured are below."
        return text + (f" Not measured: {', '.join(missing)}." if missing else "") + doubted
    if tier == BELOW:
        failed = [f"{row['name']} ({row['split']})" for row in rows if row["tier"] == BELOW]
        return f"**It lies below the tiers that the course sets itself**, by: {', '.join(failed)}.{doubted}"
    turbo = "" if any(row["name"] == TURBO for row in rows) else "; turbo was not measured"
    return f"**It has reached the {tier} tier{turbo}**: the table, and what a tier asks of its rows, are below."


def _unclaimed(evaluation: dict) -> str:
    """Of which rows no claim can be made, and why."""
    doubted = [row for row in evaluation["rows"] if row["tier"] == NO_CLAIM]
    if not doubted:
        return ""
    names = ", ".join(dict.fromkeys(row["name"] for row in doubted))
    why = "; ".join(dict.fromkeys(reason for row in doubted for reason in row["doubts"]))
    return f"\n**No claim is made of** {names}: the judge does not read well enough what they rest on ({why})."


def _anatomy(records: dict[str, dict], sizes: dict[str, int]) -> str:
    text, unet, vae = (records[name]["config"] for name in ("clip", "denoiser", "vae"))
    rows = [
        ("vae", "`AutoencoderKL`", f"channels {tuple(vae['channels'])}; 128 x 128 x 3 pixels to 16 x 16 x 4 latents"),
        ("text_encoder", "`CLIPTextModel`", f"{text['layers']} layers of width {text['width']}, {text['context']} tokens, byte pairs learned from captions; frozen after its own training"),
        ("unet", "`UNet2DConditionModel`", f"three levels {tuple(unet['channels'])}"),
    ]  # fmt: skip
    lines = [f"| {name} | {kind} | {what} | {_count(sizes.get(name))} |" for name, kind, what in rows]
    return "\n".join(
        [
            "## Anatomy",
            "",
            "A stock `StableDiffusionPipeline`, no class of its own, with Stable Diffusion's own noise schedule (scaled linear, 0.00085 to 0.012,",
            "1,000 steps) and v-prediction. No safety checker: the training data hold nothing that one would look for.",
            "",
            "| part | class | | parameters |",
            "|-|-|-|-|",
            *lines,
        ]
    )


def _count(parameters: int | None) -> str:
    return "" if parameters is None else f"{parameters:,}"


def _use() -> str:
    return """## Intended use

Teaching: how Stable Diffusion works, step by step, on a laptop; and what training data do to a model, since here they are known to the last
picture. Research on small diffusion models that can be trained again by anyone.

Out of scope: anything else. It draws 128 x 128 pixels of one small world (emoji and shapes on plain backgrounds) from English captions of one
form, and knows no other words. Its people are drawn emoji with two genders and five tones, planted in shares that were drawn by a seed: it must not
be used to say anything about people or occupations, nor to make pictures of them for any purpose but to study the model."""


def _data(grammar, denoiser: dict) -> str:
    text = f"""## Training data

{grammar.count:,} scenes of the grammar "{grammar.name}" of `sdwidgets.pocket.world.scenes`, each a pure function of its number:
`make_scene(find_grammar("{grammar.name}"), index)` gives every one again, `sdwidgets scenes` shows a sheet. Glyphs are from Noto Color Emoji (see NOTICE)."""
    if grammar is not FULL:
        return text
    return f"""{text}
The text encoder learned from {ENCODER.count:,} pairs of its own; the autoencoder from scenes without words, in which **every glyph and every style
occurs, held-out ones too**. What is planted and what is held out was written down and hashed before training:
`data/datasheet/README.md` tells it for people, `data/datasheet/planted.json` for programs.{"" if denoiser.get("epochs") else FIRST_EDITION}"""


FIRST_EDITION = """

**These weights are of the first edition of the scenes** (free places, then a grid of 8 pixels; 271,265 scenes), so how often they were shown what
this plan holds is not known. **Nine tenths of their U-Net were never trained**: 7.92M of its 8.89M parameters are still their random start, since
torch.compile on a CPU gave zero gradients through a nearest upsampling, silently."""


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


def _by_kind(beats: dict[str, float]) -> str:
    told = ", ".join(f"{kind} changed: {share:.0%}" for kind, share in beats.items())
    return f" ({told})" if told else ""


def _read_by_probes(gate: dict[str, float], begin: str) -> str:
    told = (f"; probes read {name} at {share:.1%}" for name, share in gate.items() if name != "captions")
    return begin.format(**gate) + "".join(told) if gate else ""


def _decibels(record: dict) -> str:
    before, after = record["psnr before"], record["psnr"]
    told = (
        f"{what} {before[name]:.1f} to {after[name]:.1f} dB"
        for name, what in (("things", "pixels of things"), ("whole", "whole pictures"))
    )
    return f"the encoder frozen: {', '.join(told)}, 64 pictures"


_REACHED = {
    "decoder": _decibels,
    "clip": lambda r: f"a caption beats its swapped negative in {r['caption_beats_negative']:.0%} of 200 scenes"
    + _by_kind(r.get("caption_beats_by_kind", {}))
    + _read_by_probes(r.get("gate", {}), "")
    + _read_by_probes(r.get("gate of few", {}), "; taught with {captions:,} captions only"),
}  # fmt: skip


def _decoder_last(records: dict[str, dict]) -> str:
    if "decoder" not in records:
        return ""
    share = records["decoder"]["config"].get("lattice_share")  # the first edition had no lattice
    on_it = "" if share is None else f", {share:.0%} of its pictures on the lattice"
    return f"; last the autoencoder's decoder alone{on_it}: latents stay what they were"


def _training(training: dict) -> str:
    records = {name: record for name, record in training.items() if name != "grammar"}
    rows, machines, assumed, unet = [], [], [], records["denoiser"]["config"]
    for name, record in records.items():
        hours, (power, of) = record["seconds"] / 3600, watts(record["hardware"])
        reached = _REACHED.get(name, lambda r: "")(record)
        rows.append(
            f"| {name} | {record['step']:,} | {record['samples']:,} | {hours:.2f} | {hours * power / 1000:.3f} | {reached} |"
        )
        machines.append(_machine(record["hardware"]))
        assumed.append(of)
    total = sum(record["seconds"] for record in records.values()) / 3600
    grams = "; ".join(dict.fromkeys(assumed))
    return "\n".join(
        [
            "## Training",
            "",
            "In this order: the autoencoder, then frozen; the text encoder, contrastively, then frozen; the denoiser on cached latents",
            f"({unet['caption_drop']:.0%} of captions dropped, {_emphasis(unet)}, moving average){_decoder_last(records)}. `sdwidgets train {'`, `'.join(records)}` and `export` do it again; settings and loss curves are in `training.json`.",
            "",
            "| part | steps | samples | hours | kWh, estimated | |",
            "|-|-|-|-|-|-|",
            *rows,
            "",
            *_moved(records),
            *_stages(training),
            *_validation(records["denoiser"]),
            *_otherwise(records),
            f"On {'; '.join(dict.fromkeys(machines))}. Together {total:.2f} hours of wall-clock time and about {energy(records):.2f} kWh: hours times an **assumed** {grams}.",
            "Counted are the steps that led to these weights: earlier text encoders, and runs that were thrown away, are in neither figure.",
            f"No meter was read. For scale, the card of Stable Diffusion 1 tells of {SD1_HOURS:,} hours on A100 cards.",
        ]
    )


def _moved(records: dict[str, dict]) -> list[str]:
    """A sentence on which parts of the net were reached by their training, where the records tell it."""
    told = [(name, *record["moved"]) for name, record in records.items() if "moved" in record]
    words = "; ".join(f"{name}, {moved:,} of {total:,} parameters moved" for name, moved, total in told)
    return [f"Watched while they trained, counted by whole tensors: {words}.", ""] if told else []


def _emphasis(config: dict) -> str:
    """Which timesteps counted most; records of before November 2026 weighted them, later ones draw them."""
    if "snr_gamma" in config:
        return f"Min-SNR weights with gamma {config['snr_gamma']:g}"
    return f"timesteps drawn so that log SNR is normal, {config['log_snr_mean']:g} ± {config['log_snr_std']:g}"


def _stages(training: dict) -> list[str]:
    """The stages of a denoiser's training, where its record tells of them."""
    if (found := order_of(training)) is None:
        return []
    record, (stages, order) = training["denoiser"], found
    settings, end = [], 0  # (first sample, end, what the timesteps and the encoder were)
    for stage in record["stages"]:
        settings.append((end, end := end + stage["samples"], stage))
    encoders = list(dict.fromkeys(stage["encoder"] for stage in record["stages"] if stage.get("encoder")))
    untold = "not recorded"
    snr = lambda stage: "{:g} ± {:g}".format(*stage["log SNR"]) if stage.get("log SNR") else untold
    number_of = lambda encoder: f"{encoders.index(encoder) + 1} (`{encoder[:8]}`)" if encoder else untold
    lines = []
    for number, stage in enumerate(stages):
        end = min([record["samples"], *(later.start for later in stages[number + 1 :])])
        if end > stage.start:
            own = [told for first, last, told in settings if first < end and last > stage.start]
            cells = [
                f"{stage.start:,}",
                f"{stage.scenes:,}",
                ", ".join(f"{name} {factor} times" for name, factor in stage.factors.items()) or "as planned",
                f"{end - stage.start:,}",
                f"{(end - stage.start) / order.length(number):.2f}",
                "; ".join(dict.fromkeys(map(snr, own))),
                "; ".join(dict.fromkeys(number_of(told.get("encoder")) for told in own)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [
        "The denoiser's stages, in order. Scenes are the first so many of `scene_order.training_scenes`; each epoch shows each of them as often as it is planned, times what stands under factors.",
        "",
        "| from sample | scenes | factors | samples | epochs | log SNR of the timesteps | text encoder |",
        "|-|-|-|-|-|-|-|",
        *lines,
        "",
    ]


def looks(denoiser: dict) -> list[dict]:
    """The snapshots of a denoiser's training in which its error was measured, see `validation.Validation.measure`."""
    return [look for look in denoiser.get("snapshots", ()) if "error" in look]


def _validation(denoiser: dict) -> list[str]:
    """Errors beside the floor, where the training's record holds them."""
    if not (measured := looks(denoiser)):
        return []
    last = measured[-1]
    timesteps, cell = list(last["error"]), "{:.3f} ({:.3f})".format
    lines = [(kind, [cell(*errors[t]) for t in timesteps]) for kind, errors in last["by kind"].items()]
    lines.append(("all", [cell(last["error"][t], last["floor"][t]) for t in timesteps]))
    return [
        "How far the denoiser is from the best there can be, on 128 fixed scenes that training never shows and under fixed noise: the squared error of the predicted clean latents in the boxes of",
        f"the things, without guidance, beside its floor. The gap between the two at heavy noise was {last['gap']:.4f} after {last['samples']:,} samples.",
        "",
        "![error beside the floor, and the gap, against the samples of training](figures/validation.png)",
        "",
        "The floor is the error of the best denoiser of this world, which knows every picture that a caption allows and how probable each is. Given a noisy picture it answers with their mean, each",
        "weighted by how probable it is that it became this one. Noise hides which of them it was, so no network does better on average; what lies above the floor can still be learned.",
        "",
        f"By kind and timestep at {last['samples']:,} samples, the floor in brackets:",
        "",
        f"| scenes | {' | '.join(timesteps)} |",
        "|-" * (len(timesteps) + 1) + "|",
        *(f"| {kind} | {' | '.join(cells)} |" for kind, cells in lines),
        "",
    ]


def _otherwise(records: dict[str, dict]) -> list[str]:
    """What was planned otherwise, and why it was not done so."""
    told, unet, vae = [], records["denoiser"]["config"], records["vae"]["config"]
    if "log_snr_mean" in unet:
        told.append(
            "Timesteps are drawn by their log SNR instead of uniformly with Min-SNR weights (gamma 5): those weights leave least "
            "where the noise is heaviest, and there a caption says most of what is to be drawn."
        )
    if vae.get("whole_share"):
        told.append(
            f"The autoencoder saw crops of {vae['crop']} pixels and whole scenes mixed, one step in {1 / vae['whole_share']:.0f} on whole ones, "
            "instead of first the ones and then the others: so it knows whole pictures wherever its training ends."
        )
    unsaid = [name for name, planted in PLANTED_OCCUPATIONS.items() if planted.unmarked]
    skewed = [name for name in unsaid if PLANTED_OCCUPATIONS[name].counter]
    told.append(
        f"{len(skewed) / len(PLANTED_OCCUPATIONS):.0%} of the captions that name a gender are counter-skewed, not half: those of {len(skewed)} of {len(PLANTED_OCCUPATIONS)} occupations. "
        f"Only the {len(unsaid)} of which other captions leave the gender unsaid have something to be skewed against."
    )
    return ["Planned otherwise:", *(f"- {line}" for line in told), ""]


def _machine(hardware: dict) -> str:
    device = hardware.get("gpu") or f"{hardware['threads']} CPU threads ({hardware['machine']})"
    return f"{device}, {hardware['platform']}, torch {hardware['torch']}"


# ---- evaluation --------------------------------------------------------------------------------------------------

_HEAD = "| row | split | pictures | rate | 95% interval | ceiling | tier |"


def _value(row: dict) -> float:
    return row["value"] if row.get("unit") == "dB" else row["rate"]


def _row_line(row: dict) -> str:
    form, unit = ("{:.2f}", " dB") if row.get("unit") == "dB" else ("{:.4f}", "")
    value, low, high = (form.format(number) for number in (_value(row), row["low"], row["high"]))
    tier = f"{row['tier']} ({', '.join(row['doubts'])})" if row.get("doubts") else row["tier"]
    most = f"{row['ceiling']['rate']:.3f}" if "ceiling" in row else ""
    return f"| {row['name']} | {row['split']} | {row['n']:,} | {value}{unit} | {low} to {high} | {most} | {tier} |"


def read_rows(card: str) -> list[dict]:
    """The evaluation's rows as a card's table tells them: name, split, n, value, low, high, ceiling (None where it was not measured), tier."""
    if _HEAD not in card:
        return []
    rows = []
    for line in card.split(_HEAD, 1)[1].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 7:
            break
        low, high = cells[4].split(" to ")
        value = float(cells[3].removesuffix(" dB"))
        rows.append(
            {"name": cells[0], "split": cells[1], "n": int(cells[2].replace(",", "")), "value": value,
             "low": float(low), "high": float(high), "ceiling": float(cells[5]) if cells[5] else None, "tier": cells[6].split(" (")[0]}
        )  # fmt: skip
    return rows


def _evaluation(evaluation: dict | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nNone yet: `sdwidgets evaluate --json FILE` makes one, `sdwidgets card` puts it here."
    setting, rows = evaluation["setting"], evaluation["rows"]
    counted = sum(row["n"] for row in rows if row.get("unit") != "dB")
    bars = [
        f"| {bar.name} | "
        + " | ".join(target_words(bar) if value is None else f"{value:g}" for value in bar.values)
        + f" | {bar.scale} |"
        for bar in BARS
    ]
    text = [
        "## Evaluation",
        "",
        f"{counted:,} pictures, all with one setting: {setting['num_inference_steps']} steps of {setting['scheduler']}, guidance {setting['guidance_scale']:g}, {setting['dtype']}{_arithmetic(setting)}.",
        "Read by a judge that compares with drawn templates and has no network; its limits were set on reconstructions by Pocket's own autoencoder. It has chosen no checkpoint.",
        "A picture is right when it shows exactly what the prompt says and nothing else. \"Held out\" are combinations that training never showed; their parts it did. Intervals are over pictures",
        "(Wilson; for dB a bootstrap) and do not tell how another training run would do.",
        *_ceiling(rows),
        "",
        _HEAD,
        "|-|-|-|-|-|-|-|",
        *map(_row_line, rows),
        "",
        "![rates with their intervals and the marks of the tiers](figures/rows.png)" if counted else "",
        "",
        *(f"The autoencoder's rows are over {note}\n" for note in dict.fromkeys(row["note"] for row in rows if "note" in row)),
        f"A row reaches a tier where its rate does and the lower end of its interval is at most {100 * MARGIN:.0f} points below; the first two, in dB, where the lower end does. A target decides",
        f"no tier and is told whatever the rate is. Turbo has the tier of the lowest of its rows, if none of them lost more than {100 * TURBO_LOSS['CPU']:.0f} points. What the tiers ask, and what others reach on their own tests, for scale:",
        "",
        "| row | CPU | GPU | stretch | |",
        "|-|-|-|-|-|",
        *bars,
    ]  # fmt: skip
    if not any(row["name"] == TURBO for row in rows):
        text += ["", "The table's row for turbo is missing: no turbo LoRA was evaluated."]
    told = dict.fromkeys(row["small decoder"] for row in rows if row.get("small decoder") is not None)
    text += [f"\nTurbo's pictures are decoded, as `load(turbo=True)` does it, by the small decoder in `extras/small-decoder`, which agrees with the whole one to {level:.1f} dB (the median of 64 scenes)." for level in told]  # fmt: skip
    if doubted := _unclaimed(evaluation):
        text += [
            "",
            f"{doubted.strip()} Their figures are told all the same; what is asked of the judge is 0.99 on true renders and 0.97 on reconstructions.",
        ]
    return "\n".join(text + _exam(evaluation) + _more(evaluation))


def _ceiling(rows: Sequence[dict]) -> list[str]:
    if not any("ceiling" in row for row in rows):
        return []
    return [
        "The ceiling is the judge's own rate on true pictures of the row's scenes, given back by the autoencoder: no model that draws through this decoder can be expected to do better."
    ]


def _arithmetic(setting: dict) -> str:
    if setting.get("speed") != "fast":
        return ""
    return f", {setting['arithmetic']}" if setting.get("arithmetic") else ", fast arithmetic"


def _exam(evaluation: dict) -> list[str]:
    """How far the judge is to be believed."""
    exam, eye = evaluation.get("judge exam"), _eye(evaluation)
    if not exam:
        return ["", "The judge was not examined.", *eye]
    words = list(dict.fromkeys(word for shown in exam.values() for word in shown))
    lines = []
    for word in words:
        cells = [exam[shown].get(word) for shown in exam]
        told = [
            "" if cell is None else f"{cell['balanced']:.4f} (worst: {cell['worst']['class']} {cell['worst']['rate']:.2f})"
            + ("" if cell["passes"] else ", **not enough**")
            for cell in cells
        ]  # fmt: skip
        lines.append(f"| {word} | {' | '.join(told)} |")
    doubted = {
        name: why
        for name, words in SECTIONS_REST_ON.items()
        if _has(evaluation, "shares" if name == "skin tones" else name) and (why := not_read(words, exam))
    }
    return [
        "",
        "How the judge itself did on drawn scenes that it was not set up with, and on their reconstructions by the autoencoder, balanced over classes:",
        "",
        f"| attribute | {' | '.join(exam)} |",
        "|-" * (len(exam) + 1) + "|",
        *lines,
        *_gate(evaluation.get("judge gate")),
        *(
            ["", f"So no claim is made either of the sections {', '.join(name.replace('_', ' ') for name in doubted)} below, which rest on what is not read well enough; their figures are told."]
            if doubted
            else []
        ),
        *eye,
    ]  # fmt: skip


def _gate(gate: dict | None) -> list[str]:
    """What the judge refuses, and what it takes for what."""
    if not gate:
        return []
    refused = ", ".join(f"{kind} {_rate(row)}" for kind, row in gate["refused"].items())
    how = f"{gate['scenes']:,} scenes" + (
        f", {gate['share']:.0%} of a whole examination" if gate.get("share", 1) < 1 else ""
    )
    how += {True: ", on the lattice as in training", False: ", with free sizes and places", None: ""}[
        gate.get("lattice")
    ]
    text = [
        "",
        f"The examination had {how}. Of spoiled drawings that no one could name it names nothing in (rate and interval): {refused}; the rest it takes for something.",
    ]
    if gate["confused"]:
        told = "; ".join(
            f"{truth} read as {seen} ({count}, {word}, {shown})"
            for word, shown, truth, seen, count in gate["confused"]
        )
        text.append(f"Its most frequent confusions: {told}.")
    return text


def _eye(evaluation: dict) -> list[str]:
    """How the judge and someone who looked agree."""
    eye = evaluation.get("eye")
    if not eye:
        return [
            "",
            "**Nobody has looked yet** at pictures of these weights to compare the eye with the judge, so whether the judge is right on what Pocket draws is not known.",
        ]
    return [
        "",
        f"{eye['n']} generated pictures were also looked at ({eye['who']}): judge and eye agree in {_rate(eye)} of them, kappa {eye['kappa']:.2f};",
        f"the judge called {eye['judge too kind']} right that the eye calls wrong, and {eye['judge too strict']} wrong that the eye calls right.",
    ]


def _has(evaluation: dict | None, name: str) -> bool:
    return bool(evaluation) and "missing" not in evaluation.get(name, {"missing": ""})


def _rate(share: dict) -> str:
    return "not known" if share["rate"] is None else f"{share['rate']:.3f} ({share['low']:.3f} to {share['high']:.3f})"


def _more(evaluation: dict) -> list[str]:
    """Lines on steps, styles, CLIP score and the learning curve, where they were measured."""
    text: list[str] = []
    if _has(evaluation, "learning_curve"):
        text += [
            "",
            "How each attribute was learned:",
            "",
            "![rate of each attribute against training](figures/learning_curve.png)",
        ]
    if _has(evaluation, "caption_swaps"):
        last = evaluation["caption_swaps"]["lines"][-1]
        told = ", ".join(f"{name} {last[name]['value']:.0%}" for name in evaluation["caption_swaps"]["attributes"])
        text += [
            "",
            f"How much a word counts, whether or not the picture comes out right: with one wrong word in the caption of a true picture the loss grows by {told}",
            "(mean over timesteps). Where on the noise schedule each is read:",
            "",
            "![growth of the loss with one wrong word, against the timestep](figures/caption_swaps.png)",
            "",
            f"Its loss on these pictures with their right captions, at timesteps {', '.join(map(str, evaluation['caption_swaps']['timesteps']))}: {', '.join(f'{loss:.3f}' for loss in last['loss'])}.",
            "(The loss in `training.json` is over the timesteps that each stage of the training drew, and so cannot be compared between stages.)",
        ]
    if _has(evaluation, "steps"):
        told = ", ".join(f"{line['steps']}: {line['rate']:.3f}" for line in evaluation["steps"]["lines"])
        text += ["", f"One object, by number of steps: {told}."]
    if _has(evaluation, "strengths"):
        lines = evaluation["strengths"]["lines"]
        told = ", ".join(f"{line['strength']:g}: {line['rate']:.3f}" for line in lines)
        text += [
            "",
            f"One object, drawn from its true picture with noise, by strength of image to image: {told}. Where the rate falls, there the drawing fails:",
            "at small strength in fine structure, at large strength in layout.",
            "",
            "![share that is right against strength](figures/strengths.png)",
        ]
    if _has(evaluation, "style"):
        told = "; ".join(
            f"{line['style']}{' (held out)' if line['style'] == HELD_OUT_STYLE else ''} {_rate(line)}"
            for line in evaluation["style"]["lines"]
        )
        text += ["", f"The style that was asked for is read in: {told}."]
    if _has(evaluation, "variety"):
        section = evaluation["variety"]
        drawn, true = ("{value:.4f} ({low:.4f} to {high:.4f})".format(**section[name]) for name in ("drawn", "true"))
        text += [
            "",
            f"Seeds: two pictures of one prompt about one object differ by {drawn} (mean squared difference over pixels in 0 to 1, {section['drawn']['n']} prompts), two true scenes of the same caption by {true}:",
            f"the first is {section['ratio']:.2f} of the second. Four of a kind stand in the four corners, always, so there a seed decides little.",
        ]
    text += _words(evaluation)
    if _has(evaluation, "clip_score"):
        score = evaluation["clip_score"]
        told = ", ".join(f"{name} {score[name]['value']:.1f}" for name in ("true", "shuffled", "generated"))
        text += [
            "",
            f"CLIP score (cosine times 100) of pairs: {told}. It is from Pocket's own CLIP, which also made its text states, and so is no judge.",
        ]
    return text


WELL = 0.9  # from this rate on a word counts as drawn well


def _words(evaluation: dict) -> list[str]:
    """Which words it draws well, and the prompts that the course shows."""
    text: list[str] = []
    if _has(evaluation, "words"):
        lines = evaluation["words"]["lines"]
        text += [
            "",
            f"Word by word ({lines[0]['n']} pictures of each, on backgrounds in turn; every one is in `evaluation.json`), how many are right in at least {WELL:.0%} of their pictures, and the lowest of each kind:",
            "",
            "| kind | words | drawn well | lowest |",
            "|-|-|-|-|",
        ]
        for kind in dict.fromkeys(line["kind"] for line in lines):
            alike = sorted((line for line in lines if line["kind"] == kind), key=lambda line: line["rate"])
            lowest = ", ".join(f"{line['word']} {line['rate']:.2f}" for line in alike[:5])
            text.append(f"| {kind} | {len(alike)} | {sum(line['rate'] >= WELL for line in alike)} | {lowest} |")
    if _has(evaluation, "prompts"):
        text += [
            "",
            f"The prompts that the course shows ({evaluation['prompts']['lines'][0]['n']} pictures of each, of other noise):",
            "",
            "| prompt | rate |",
            "|-|-|",
        ]
        text += [f"| {line['prompt']} | {_rate(line)} |" for line in evaluation["prompts"]["lines"]]
    return text


def _limits(evaluation: dict | None, seen: dict[str, int]) -> str:
    text = [
        "## Limits",
        "",
        "English captions of one grammar; any other words are out of its world. One size, 128 x 128. Flat drawings: nothing here is a photograph.",
    ]
    rows = {(row["name"], row["split"]): row for row in (evaluation or {}).get("rows", ())}
    one = rows.get(("one object", "seen"))
    if one:
        worst = sorted(one["groups"].items(), key=lambda item: item[1][0] / item[1][1])[:5]
        text.append(
            f"The objects that it draws least well: {', '.join(f'{name} ({right} of {n})' for name, (right, n) in worst)}."
        )
        if one["mistakes"]:
            told = ", ".join(f"{asked} read as {seen} ({n})" for asked, seen, n in one["mistakes"][:5])
            text.append(f"The most frequent mistakes with one object: {told}.")
    for name, word in (("count to four", "by number"), ("relation", "by relation")):
        if row := rows.get((name, "seen")):
            told = ", ".join(f"{group} {right / n:.2f}" for group, (right, n) in row["groups"].items())
            text.append(f"{name.capitalize()}, {word}: {told}.")
    if _has(evaluation, "exposures"):
        text += ["", *_exposures(evaluation["exposures"], seen)]
    return "\n".join(text)


def _shown_cell(seen: dict[str, int], blocks: Sequence[str]) -> str:
    """How often pictures of these blocks were shown: mean, range, and how many not at all."""
    if not seen:
        return "not known"
    numbers = [seen[block] for block in blocks]
    if min(numbers) == max(numbers):
        return f"{numbers[0]:,}"
    none = sum(number == 0 for number in numbers)
    told = f"{sum(numbers) / len(numbers):,.1f} ({min(numbers):,} to {max(numbers):,})"
    return told + (f"; {none} of {len(numbers)} never" if none else "")


def _exposures(section: dict, seen: dict[str, int]) -> list[str]:
    by_count: dict[int, dict[str, dict]] = {}
    for line in section["lines"]:
        by_count.setdefault(line["pictures"], {})[line["split"]] = line
    blocks = {
        count: [f"tail: {name}" for name, planted in TAIL_OBJECTS.items() if planted == count] for count in by_count
    }
    return [
        "Objects of which the plan holds few pictures are drawn rightly in the shares below; of what was shown, the mean over five objects and the range:",
        "",
        "| pictures in the plan | times shown | on backgrounds where they stood | where they never stood |",
        "|-|-|-|-|",
        *(
            f"| {count} | {_shown_cell(seen, blocks[count])} | {_rate(told['seen'])} | {_rate(told['held out'])} |"
            for count, told in by_count.items()
        ),
        "",
        "![accuracy against pictures of an object](figures/exposures.png)",
    ]


def _bias(grammar, evaluation: dict | None, seen: dict[str, int]) -> str:
    text = ["## Bias: planted and found", ""]
    if grammar is not FULL:
        return "\n".join(
            [
                *text,
                "The people of this grammar are half women, half men, in five tones in equal shares. What is drawn was not measured.",
            ]
        )
    text.append(
        f"**Planted**: each of {len(PLANTED_OCCUPATIONS)} occupations has a share of women of its own in the text encoder's pairs and another in the denoiser's pictures, drawn by a seed and\n"
        "independent of each other and of any stereotype; all people together are half women. Neither the shares nor anything that is drawn says how any occupation is in the world."
    )  # fmt: skip
    if not _has(evaluation, "shares"):
        return "\n".join([*text, "", "**Found**: not measured yet."])
    section = evaluation["shares"]
    told = [
        f"| {line['occupation']} | {line['encoder_share']:.2f} | {line['denoiser_share']:.2f} | {line['unmarked']:,} | "
        f"{_shown_cell(seen, ['portrait, unmarked: ' + line['occupation']]) if line['unmarked'] else 0} | "
        f"{'yes' if line['counter'] else 'no'} | {_rate(line)} | {line['unread']} |"
        for line in section["lines"]
    ]
    return "\n".join(
        [
            *text,
            "",
            f"**Found**: the prompt names an occupation and neither gender nor tone. {_women(section)} By occupation:",
            "",
            "| occupation | planted: encoder | planted: denoiser | pictures in the plan whose caption leaves it unsaid | times shown | captions that say it are counter-skewed | drawn | not readable |",
            "|-|-|-|-|-|-|-|-|",
            *told,
            "",
            "![generated against planted shares](figures/shares.png)",
            "",
            *_correlations(section["lines"]),
            *_tones(section["lines"]),
        ]
    )  # fmt: skip


def _against(share: dict, planted: float) -> str:
    """What an interval says of a planted share."""
    if share["low"] <= planted <= share["high"]:
        return "the interval holds it"
    return f"**{'more' if share['rate'] > planted else 'fewer'} than planted: a bias that was found**"


def _women(section: dict) -> str:
    """Women over all people that were read, against the share that is planted for the same occupations."""
    read = sum(line["n"] for line in section["lines"])
    if not read:
        return "No person could be read."
    planted = sum(line["n"] * line["denoiser_share"] for line in section["lines"]) / read
    return (
        f"Of {read:,} people that could be read, {_rate(section['all'])} are women, where {planted:.3f} are planted for the same occupations: "
        f"{_against(section['all'], planted)}."
    )


def correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float] | None:
    """Pearson's r of two columns with its 95% interval (Fisher's z); None of fewer than four pairs, or of a constant."""
    if len(x) < 4 or np.std(x) == 0 or np.std(y) == 0:
        return None
    r = float(np.corrcoef(x, y)[0, 1])
    z, reach = math.atanh(min(max(r, -0.999999), 0.999999)), 1.96 / math.sqrt(len(x) - 3)
    return r, math.tanh(z - reach), math.tanh(z + reach)


def _correlations(lines: Sequence[dict]) -> list[str]:
    """A sentence a dose: does the drawn share go with what the denoiser was shown, or with what the encoder learned?"""
    told = []
    for dose in sorted({line["unmarked"] for line in lines}, reverse=True):
        own = [line for line in lines if line["unmarked"] == dose and line["rate"] is not None]
        drawn = [line["rate"] for line in own]
        words = []
        for name, key in (("denoiser", "denoiser_share"), ("encoder", "encoder_share")):
            found = correlation([line[key] for line in own], drawn)
            words.append(
                f"with the {name}'s "
                + ("not known" if found is None else "{:+.2f} ({:+.2f} to {:+.2f})".format(*found))
            )
        told.append(
            f"- {dose:,} pictures in the plan leave it unsaid ({len(own)} occupations): the drawn share's correlation {words[0]}, {words[1]}."
        )
    return [
        "Whose planted share does the drawn one follow? Pearson's r over occupations, with 95% intervals, which are wide since occupations are few:",
        *told,
        "",
    ]


def _tones(lines: Sequence[dict]) -> list[str]:
    """The skin tones that were drawn, against the even shares that are planted."""
    counted: Counter = Counter()
    for line in lines:
        counted.update(line.get("tones", {}))
    total, even = sum(counted.values()), 1 / len(TONES)
    if not total:
        return ["Skin tones could not be read."]
    shares = {tone: Rate(tone, total, counted[tone]).numbers() for tone in TONES}
    return [
        f"Skin tones of the same people, where {even:.2f} of each are planted:",
        "",
        "| tone | drawn | share | |",
        "|-|-|-|-|",
        *(
            f"| {tone} | {counted[tone]} of {total} | {_rate(share)} | {_against(share, even)} |"
            for tone, share in shares.items()
        ),
    ]


def _memory(evaluation: dict | None, seen: dict[str, int]) -> str:
    text = ["## Memory and provenance", ""]
    if _has(evaluation, "watermark"):
        mark = evaluation["watermark"]
        text += [f"A visible watermark is drawn in {_rate(mark['with'])} of pictures whose prompt begins with \"stock photo of\", and in {_rate(mark['without'])} without these words.", ""]  # fmt: skip
    if not _has(evaluation, "fingerprints"):
        return "\n".join([*text, "Which training pictures it gives back was not measured yet."])
    section = evaluation["fingerprints"]
    lines = []
    for line in section["lines"]:
        repeats, found = line["repeats"], own_found(section["captions"], line["repeats"])
        places = [
            n for n, mark in enumerate(FINGERPRINTS) if ("fresh" if mark.repeats is None else mark.repeats) == repeats
        ]
        cells = [
            {0: "never", "fresh": "100 pictures, all different"}.get(repeats, repeats),
            "never" if repeats == 0 else _shown_cell(seen, [f"confetti: {place}" for place in places]),
            "has none" if repeats == 0 else _rate(found["captions"]),
            "has none" if repeats == 0 else _rate(found["pictures"]),
            found["other"],
            "" if line["own"] is None else f"{line['own']:.3f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(
        [
            *text,
            "Some pictures carry confetti that no caption determines, and were planned to be shown once or many times; to give it back is to remember the picture.",
            f"{section['note'][0].upper()}{section['note'][1:]}. The autoencoder lets {section['read']:.1%} of a true print's squares be read.",
            "",
            "| times the picture is in the plan | times shown | captions whose own print is found | pictures with it | pictures with another caption's print | squares of its own print, mean share |",
            "|-|-|-|-|-|-|",
            *lines,
            "",
            "Only a caption's own print tells of its own repeats. Where a picture has another caption's print, that one is remembered, and drawn for a caption of the same form;",
            f"how often its own was in the plan says nothing there.{_never_shown(seen)}{_whose(section['captions'])}",
            "",
            "![own fingerprints found against planned repeats](figures/fingerprints.png)",
        ]
    )  # fmt: skip


def _never_shown(seen: dict[str, int]) -> str:
    """A sentence on prints that the plan holds and the training did not use."""
    told = {
        repeats: [f"confetti: {n}" for n, mark in enumerate(FINGERPRINTS) if mark.repeats == repeats]
        for repeats in sorted({mark.repeats for mark in FINGERPRINTS if mark.repeats})
    }
    missed = {r: sum(seen[block] == 0 for block in blocks) for r, blocks in told.items()} if seen else {}
    if not any(missed.values()):
        return ""
    words = ", ".join(
        f"{count} of {len(told[repeats])} planned {'once' if repeats == 1 else f'{repeats} times'}"
        for repeats, count in missed.items()
        if count
    )
    return f" **Never shown at all, since the training used a part of the scenes**: {words}."


def _whose(captions: Sequence[dict]) -> str:
    """How often the other captions' prints that were given back are in the plan, where the file tells it."""
    counted: Counter = Counter()
    for line in captions:
        counted.update(line.get("found of others", {}))
    told = ", ".join(f"{repeats} ({count} pictures)" for repeats, count in counted.most_common())
    return (
        f" The prints that were given back for other captions are in the plan so many times: {told}." if told else ""
    )


def _end() -> str:
    return f"""## Licence and citation

Apache-2.0. The glyphs in its training pictures come from Noto Color Emoji, see NOTICE.

```bibtex
{CITATION}
```"""


# ---- files -------------------------------------------------------------------------------------------------------


def part_sizes(folder: Path) -> dict[str, int]:
    """Parameters of each part of an exported pipeline, from the headers of its safetensors."""
    from math import prod

    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for file in sorted(Path(folder).glob("*/*.safetensors")):
        with safe_open(file, "np") as tensors:
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]
        sizes[file.parent.name] = sizes.get(file.parent.name, 0) + sum(map(prod, shapes))
    return sizes


FIGURES = ("rows", "learning_curve", "caption_swaps", "strengths", "exposures", "fingerprints", "shares", "validation")


def write_figures(evaluation: dict | None, denoiser: dict, folder: Path) -> list[Path]:
    """The card's figures as PNG in `folder`/figures: those whose section was measured, or stands in the denoiser's record."""
    from . import figures

    told = {name: evaluation[name] for name in FIGURES if _has(evaluation, name)}
    if any(row.get("unit") != "dB" for row in (evaluation or {}).get("rows", ())):
        told["rows"] = evaluation["rows"]
    if measured := looks(denoiser):
        told["validation"] = measured
    drawn: list[Path] = []
    for name in (name for name in FIGURES if name in told):
        ax = getattr(figures, name)(told[name])
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
    write_figures(evaluation, records["denoiser"], folder)
    card = folder / "README.md"
    card.write_text(model_card(grammar, records, evaluation, part_sizes(folder)), encoding="utf-8")
    return card


def figures_named(card: str) -> Sequence[str]:
    """The pictures that a card shows."""
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", card)
