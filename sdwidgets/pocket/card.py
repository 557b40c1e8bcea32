"""Pocket's model card, written from the records of its training: no figure in it is typed in."""

from __future__ import annotations

from .scenes import Grammar

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, tiny, teaching]
---
# Pocket 0

A real and very small Stable Diffusion, trained from scratch on drawn scenes whose every picture is known. It is the first model of the
sdwidgets course and lies **below the tiers** that the course sets itself: a model in which the prompt visibly decides, not one that draws well.
Background colours are mostly right and large things, astronauts above all, begin to be recognised; pairs, counts and most objects are not. Faces are not to be judged at all.

```python
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("data/pocket")  # or sdwidgets.load()
```

## Anatomy

A stock `StableDiffusionPipeline`, no class of its own: `AutoencoderKL` (f8, 4 channels: 128 x 128 pixels, 4 x 16 x 16 latents), `CLIPTextModel`
({layers} layers of width {width}, {context} tokens, byte-pair vocabulary learned from captions), `UNet2DConditionModel` (three levels {channels}),
Stable Diffusion's own noise schedule with v-prediction. No safety checker: the training data hold nothing that one would look for.

## Data

{scenes:,} scenes of the grammar "{grammar}" of `sdwidgets.pocket.scenes`: {objects} objects, {shapes} shapes in ten colours, {occupations} occupations drawn as women and men
in five skin tones in equal shares, alone, in pairs, or two to four of a kind, on ten background colours. Glyphs are from Noto Color Emoji (see NOTICE).
`sdwidgets scenes` shows a sheet of the full grammar; `sdwidgets.pocket.scenes.make_scene(SIMPLE, index)` gives every training scene again.

## Training

| part | steps | samples | hours | |
|-|-|-|-|-|
{rows}

On {machine}. Hours are of wall-clock time while the same two cores also ran other work, so they are an upper bound.
PSNR is over scenes drawn at random from the same grammar, so of glyphs that the VAE has seen. Settings and loss curves are in `training.json`.

## Limits and bias

English captions of one grammar; any other words are out of its world. One size, 128 x 128. The people are emoji: two drawn genders, five drawn tones, no one real; nothing here says
anything about people. No score but the ones above and the background colour (`tests/test_evaluation.py`) has been measured.
"""


def model_card(grammar: Grammar, records: dict[str, dict]) -> str:
    """The card of an export. `records`: what `training.train` returned for "vae", "clip" and "denoiser"."""
    found = {
        "vae": "PSNR {whole:.1f} dB over whole pictures, {things:.1f} dB over things only".format(
            **records["vae"]["psnr"]
        ),
        "clip": f"a caption beats its swapped negative in {records['clip']['caption_beats_negative']:.0%} of 200 scenes",
        "denoiser": f"loss {records['denoiser']['losses'][-1][1]:.3f}"
        if records["denoiser"]["losses"]
        else "",
    }
    rows = [
        f"| {name} | {record['step']:,} | {record['samples']:,} | {record['seconds'] / 3600:.2f} | {found[name]} |"
        for name, record in records.items()
    ]
    clip, unet, hardware = (
        records["clip"]["config"],
        records["denoiser"]["config"],
        records["denoiser"]["hardware"],
    )
    device = hardware.get("gpu") or f"{hardware['threads']} CPU threads ({hardware['machine']})"
    return CARD.format(
        layers=clip["layers"],
        width=clip["width"],
        context=clip["context"],
        channels=tuple(unet["channels"]),
        scenes=grammar.count,
        grammar=grammar.name,
        objects=len(grammar.objects),
        shapes=len(grammar.shapes),
        occupations=len(grammar.occupations),
        rows="\n".join(rows),
        machine=f"{device}, {hardware['platform']}, torch {hardware['torch']}",
    )
