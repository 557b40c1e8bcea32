"""The prompt X-ray: the tokens of a prompt, and for each the positions of the picture that attend to it. Numpy and Pillow only.

It is drawn from a `Trace` and the `AttentionMaps` of the same run; `sdwidgets.xray(pipe, prompt)` records both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
from PIL import Image

from .progress import progress_line
from .replay import MAX_PICTURE, about, badge_parts, finished_picture, pack, webp
from .still_image import captioned
from .view import View

MAX_BYTES, MAX_STEPS, MAX_SIDE = 400_000, 24, 32  # what a page carries of the maps
MAX_PREDICTED = 32 * 32 * 4  # numbers of a predicted picture
MAX_CUT = 60  # pieces of a prompt that was cut which are drawn
# Nine stops of matplotlib's inferno (CC0, Nathaniel Smith and Stefan van der Walt): dark to bright, also for colour-blind eyes.
HEAT = (
    (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
)  # fmt: skip
THROUGH = 0.35  # how much of the grey picture is seen through the colours


class PromptXray(View):
    """Tokens of a prompt as chips, and for the chosen one where the picture looked at it: by step and by block of the U-Net.

    trace, maps: of one run, from `sdwidgets.record` and `sdwidgets.record_attention`. known_words: all words that the model
    was trained on, in any case; a word of the prompt that is not among them is marked. None: nothing is marked.

    `set(token=...)`: a word or a phrase, of which all tokens are shown together, "<start>", "<end>", "<padding>", or numbers of columns; `step`: 0 for all steps together, or
    1 to their number; `layers`: "all" or a name of `maps.blocks`. Raises ValueError for what is not there.
    """

    script = ("curves.js", "xray.js")
    default_state = {"token": 0, "step": 0, "layers": "all"}

    def __init__(self, trace, maps, known_words: Iterable[str] | None = None, **state):
        if not len(maps) or not len(trace):
            raise ValueError(
                "nothing was recorded: run the pipeline inside both blocks,"
                " `with record(pipe) as trace, record_attention(pipe) as maps: pipe(prompt)`"
            )
        self.trace, self.maps = trace, maps
        whole = [word for word in maps.words if word != maps.truncated_word]
        self.unknown = unknown_words(whole, known_words)
        self.picture = finished_picture(trace)
        prompt = maps.prompt if maps.prompt is not None else ""
        super().__init__(self._data(), f"X-ray of the prompt {prompt[:80]!r}", **{"token": _clearest(maps), **state})

    @classmethod
    def from_pipeline(
        cls, pipe, prompt: str, *, known_words: Iterable[str] | None = None, seed: int = 0, max_megabytes: float = 256, **settings
    ):  # fmt: skip
        """Make one picture and show what every word of its prompt did: a `PromptXray`, which shows itself in a notebook.

        known_words: all words that the model was trained on; others are marked as never seen. None: those that the model's folder names;
            where it names none, nothing is marked.
        seed: of a CPU generator, so that it means the same noise on every device. settings: go to the pipeline, for example
        `num_inference_steps=20`; without it, and without `guidance_scale`, they are the model's usual ones. Its `.maps` and `.trace` hold what was recorded.

        Raises what `record_attention` raises.
        """
        import torch

        from ..analysis.attention import record_attention
        from ..generation.sharing import own_copy
        from ..generation.usual import completed
        from ..generation.validation import check_names
        from ..generation.vocabulary import find_vocabulary
        from ..recording import record

        check_names("xray", settings, cls.from_pipeline, pipe)
        generator = torch.Generator("cpu").manual_seed(seed)
        own, settings = own_copy(pipe), completed(pipe, settings)
        if known_words is None and (vocabulary := find_vocabulary(pipe)):
            known_words = vocabulary.captions
        with (
            progress_line(settings["num_inference_steps"]) as advance,
            record(own, on_step=lambda _: advance("")) as trace,
            record_attention(own, max_megabytes=max_megabytes) as maps,
        ):
            own(prompt, generator=generator, **settings)
        return cls(trace, maps, known_words=known_words)

    def validate_state(self, name: str, value):
        if name == "token":
            columns = self.maps.find(value)
            return columns[0] if len(columns) == 1 else columns
        if name == "step":
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= len(self.maps):  # fmt: skip
                raise ValueError(f"step is 0, all steps together, or 1 to {len(self.maps)}, and not {value!r}")
            return int(value)
        if value not in ("all", *self.maps.blocks):
            raise ValueError(f"layers is one of {', '.join(map(repr, ('all', *self.maps.blocks)))}, and not {value!r}")
        return value

    def heat_map(self) -> np.ndarray:
        """The map that is shown, (h, w) float32: the share of attention that each position gives to the token."""
        step, layers = self.state["step"], self.state["layers"]
        return self.maps.heat_map(
            self.state["token"], None if step == 0 else step - 1, None if layers == "all" else layers
        )

    def static_image(self) -> Image.Image:
        """The picture and the maps of eight tokens at most, over all steps and layers."""
        tokens = [i for i, token in enumerate(self.maps.tokens) if token.kind == "text" and token.text.strip()]
        rest = [i for i, token in enumerate(self.maps.tokens) if token.kind != "text"]
        chosen = sorted(tokens, key=lambda i: -len(self.maps.tokens[i].text))[: 8 - len(rest)] + rest
        maps = [(overlay(self.picture, self.maps.heat_map(i)), self.maps.tokens[i].text[:16]) for i in sorted(chosen)]
        tiles = [(self.picture, "the picture"), *maps]
        return captioned([tiles[i : i + 5] for i in range(0, len(tiles), 5)], 128)

    def _data(self) -> dict:
        trace, maps = self.trace, self.maps
        sizes = {"all": max(((layer.height, layer.width) for layer in maps.layers), key=math.prod)}
        sizes |= {layer.block: (layer.height, layer.width) for layer in maps.layers}
        side, shown = _room(list(sizes.values()), len(maps.tokens), len(maps))
        predicted = [trace[min(i, len(trace) - 1)] for i in shown]
        return {
            **about(trace.settings, trace[0].latents.shape[1:], trace.preview_factors),
            "prompt": maps.prompt or "",
            "tokens": [
                {
                    "text": token.text,
                    "kind": token.kind,
                    "word": token.word,
                    "positions": token.stop - token.first,
                    "unknown": token.kind == "text" and maps.words[token.word] in self.unknown,
                }
                for token in maps.tokens
            ],
            "truncated": list(maps.truncated[:MAX_CUT]),
            "more": max(0, len(maps.truncated) - MAX_CUT),
            "limit": maps.tokens[-1].stop,
            "unknown": sorted(self.unknown),
            "total": len(maps),
            "steps": [
                {"number": i + 1, "t": float(maps.timesteps[i]), "x0": pack(step.pred_original[0], MAX_PREDICTED)}
                for i, step in zip(shown, predicted, strict=True)
            ],
            "blocks": [self._block(name, size, side, shown) for name, size in sizes.items()],
            "colours": [list(colour) for colour in HEAT],
            "through": THROUGH,
            "picture": webp(self.picture, MAX_PICTURE),
            "badge": " · ".join(badge_parts(trace.settings)),
            "kept": maps.kept,
        }

    def _block(self, name: str, size: tuple[int, int], longest: int, shown: list[int]) -> dict:
        """The maps of one block, or of all: for each token all steps together, then each step that is shown."""
        layers = None if name == "all" else name
        shrink = max(1, math.ceil(max(size) / longest))
        small = tuple(math.ceil(n / shrink) for n in size)
        shares = self.maps.mean_attention(layers)
        maps = [
            np.stack([self.maps.heat_map(i, steps, layers, small) for steps in (None, *shown)])
            for i in range(len(self.maps.tokens))
        ]
        return {
            "name": name,
            "size": list(size),
            "layers": sum(name in ("all", layer.block) for layer in self.maps.layers),
            "mean_attention": np.round(
                np.concatenate([shares.mean(0, keepdims=True), shares[shown]]).astype(float), 5
            ).tolist(),
            "maps": [_bytes(one) for one in maps],
        }


xray = PromptXray.from_pipeline


def unknown_words(words: Iterable[str], known_words: Iterable[str] | None) -> set[str]:
    """Which of `words` are not in `known_words`, whatever their case; signs without a letter are never unknown.

    Raises TypeError for one text instead of a collection of words.
    """
    if known_words is None:
        return set()
    if isinstance(known_words, str):
        raise TypeError("known_words is a collection of words, not one text; give known_words=text.split()")
    known = {word for phrase in known_words for word in str(phrase).lower().split()}
    return {word for word in words if re.search(r"[^\W_]", word) and word.lower() not in known}


def overlay(picture: np.ndarray, heat: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:  # fmt: skip
    """A map over a picture: the picture in grey under dark (least) to bright yellow (most). (H, W, 3) uint8.

    picture: (H, W, 3) uint8. heat: (h, w), brought to the picture's size bilinearly. low, high: the ends of the colours;
    None: the least and the most of this map.
    """
    height, width = picture.shape[:2]
    low = float(heat.min()) if low is None else low
    high = float(heat.max()) if high is None else high
    level = np.clip((np.asarray(heat, np.float32) - low) / max(high - low, 1e-9), 0, 1)
    level = np.asarray(Image.fromarray(level).resize((width, height), Image.Resampling.BILINEAR))
    stops = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(level, stops, channel) for channel in np.array(HEAT).T], -1)
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., None]  # ITU-R BT.601 luma
    return np.clip(THROUGH * grey + (1 - THROUGH) * colours, 0, 255).round().astype(np.uint8)


def _clearest(maps) -> int:
    """The token whose map is the most uneven; words of four letters and more first, articles and prepositions say little."""
    columns = [i for i, token in enumerate(maps.tokens) if token.kind == "text"]
    chosen = [i for i in columns if len(maps.words[maps.tokens[i].word]) >= 4] or columns
    return max(chosen, key=lambda i: (heat := maps.heat_map(i)).max() / heat.mean(), default=0)


def _room(sizes: list[tuple[int, int]], tokens: int, steps: int) -> tuple[int, list[int]]:
    """(longest side of a map, which steps) so that the maps of a page stay below MAX_BYTES."""
    count, side = min(steps, MAX_STEPS), MAX_SIDE

    def numbers_a_step() -> int:
        shrinks = [max(1, math.ceil(max(size) / side)) for size in sizes]
        return tokens * sum(math.ceil(h / k) * math.ceil(w / k) for (h, w), k in zip(sizes, shrinks, strict=True))

    while side > 8 and numbers_a_step() * (min(count, 12) + 1) > MAX_BYTES:
        side //= 2
    count = max(1, min(count, MAX_BYTES // numbers_a_step() - 1))
    return side, sorted(set(np.linspace(0, steps - 1, count).round().astype(int).tolist()))


def _bytes(array: np.ndarray) -> dict:
    """Numbers as bytes between their least and most: they differ by little beside their size."""
    low, high = float(array.min()), float(array.max())
    levels = np.round((array - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return {"shape": list(array.shape), "low": low, "high": high, "data": levels.tobytes()}
