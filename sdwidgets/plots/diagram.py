"""The diagram of a pipeline at work, and the shapes inside its U-Net."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from .base import COLORS, DIVERGING, new_axes, small_axes

_LATENT = 1.0  # inches of a thumbnail in the diagram, whose unit is the inch


def architecture(parts: Sequence, step: Any, ax: Axes | None = None) -> Axes:
    """The parts of a pipeline at one recorded step: what goes into each, what comes out, the loop, and where a picture could go in.

    parts: what `sdwidgets.analysis.anatomy.anatomy(pipe)` returns; step: what `anatomy.one_step(pipe, trace)` does. Every picture, shape and
    count is theirs. Raises ValueError without parts.
    """
    if not parts:
        raise ValueError("there are no parts to draw; anatomy(pipe) gives some")
    own, ax = ax is None, new_axes(ax)
    figure: Any = ax.figure
    if own:
        figure.set_layout_engine("none")
        figure.set_size_inches(12, 6.3)
        ax.set_position((0, 0, 1, 1))
    ax.set_axis_off()
    ax.grid(False)
    ax.add_patch(FancyBboxPatch((1.62, 1.72), 7.85, 2.5, "round,pad=0.08", color="0.5", alpha=0.1, linewidth=0))
    _text_path(ax, parts, step)
    _loop(ax, next(part for part in parts if part.name in ("unet", "transformer")), step)
    _pixels(ax, next(part for part in parts if part.name == "vae"), step)
    ax.set(xlim=(0, 12), ylim=(0, 6.3), aspect="equal")
    return ax


def _text_path(ax: Axes, parts: Sequence, step: Any) -> None:
    """Above: the prompt, its tokens, the encoders, and the embeddings on their way into the denoiser."""
    readers = [part for part in parts if part.name.startswith("text_encoder")]
    wrapped = textwrap.fill(f"\u201c{step.prompt}\u201d", 20)
    ax.text(0.1, 5.35, wrapped, va="center", fontsize=12, style="italic")
    ax.text(0.1, 6.1, "prompt", va="center", fontsize=12, weight="bold")
    ax.text(2.55, 6.1, f"{step.embeddings.shape[0]} tokens", va="center", fontsize=12, weight="bold")
    padding = step.embeddings.shape[0] - len(step.tokens) - 2
    pieces = ["start", *step.tokens, "end", *([f"{padding}\u00a0padding"] if padding > 0 else [])]
    ax.text(2.55, 5.35, textwrap.fill(" | ".join(pieces), 25, max_lines=4), va="center", fontsize=12)
    names = "text encoder" if len(readers) == 1 else f"{len(readers)} text encoders"
    _part(ax, (6.2, 5.35), 1.9, names, f"{sum(part.parameters for part in readers) / 1e6:.1f} M parameters", COLORS[0])
    shown = step.embeddings[: len(step.tokens) + 2, :64]
    limit = float(np.nanpercentile(np.abs(shown), 98)) or 1.0
    ax.imshow(shown, cmap=DIVERGING, vmin=-limit, vmax=limit, extent=(7.7, 9.7, 4.85, 5.85), interpolation="nearest")
    ax.text(7.7, 6.1, f"embeddings, {_shape(step.embeddings.shape)}", va="center", fontsize=12, weight="bold")
    for start, end in (((2.1, 5.35), (2.48, 5.35)), ((4.75, 5.35), (5.12, 5.35)), ((7.28, 5.35), (7.62, 5.35))):
        _arrow(ax, start, end)
    ax.plot([8.7, 8.7, 4.0], [4.8, 4.5, 4.5], color="black", lw=1.5, solid_joinstyle="miter")
    _arrow(ax, (4.0, 4.5), (4.0, 3.82))


def _loop(ax: Axes, part: Any, step: Any) -> None:
    """In the middle: noise sample, then x_t, the denoiser, its prediction, the scheduler and the next x_t, and back."""
    shape = _shape(step.shape)
    _thumbnail(ax, step.noise, (0.65, 3.25), "noise sample", f"from seed {step.seed}" if step.seed is not None else "")
    _thumbnail(ax, step.noisy, (2.25, 3.25), "$x_t$", shape)
    _thumbnail(ax, step.following, (8.85, 3.25), "$x_{t-1}$", shape)
    name = {"unet": "U-Net"}.get(part.name, part.name)
    _part(ax, (4.0, 3.25), 1.75, name, f"{part.parameters / 1e6:.1f} M parameters", COLORS[1])
    ax.text(4.0, 2.33, f"timestep $t$ = {step.timestep:.0f}", ha="center", va="center", fontsize=12)
    _arrow(ax, (4.0, 2.44), (4.0, 2.7))
    what = {"epsilon": "noise", "v_prediction": "v", "sample": "picture", "flow_prediction": "velocity"}
    kind = what.get(step.prediction_type, step.prediction_type)
    small = 0.62 if len(step.predictions) > 1 else _LATENT
    for picture, y in zip(step.predictions, (3.58, 2.92) if small < _LATENT else (3.25,), strict=True):
        _thumbnail(ax, picture, (5.75, y), size=small)
    ax.text(5.75, 4.04, f"predicted {kind}", ha="center", va="center", fontsize=12)
    if len(step.predictions) > 1:
        ax.text(5.75, 2.36, "with and without\nthe prompt", ha="center", va="center", fontsize=12, linespacing=1)
        ax.text(
            7.3,
            3.98,
            f"guidance {step.guidance:g}:\nboth into one",
            ha="center",
            va="center",
            fontsize=12,
            linespacing=1,
        )
    _part(ax, (7.3, 3.25), 1.2, "scheduler", "no parameters", "0.5")
    for start, end in ((1.2, 1.7), (2.8, 3.05), (4.95, 5.3), (6.2, 6.62), (7.98, 8.3), (9.4, 9.85)):
        _arrow(ax, (start, 3.25), (end, 3.25))
    ax.plot([8.85, 8.85, 2.25], [2.46, 1.95, 1.95], color="black", lw=1.5, solid_joinstyle="miter")
    _arrow(ax, (2.25, 1.95), (2.25, 2.46))
    ax.text(
        5.6,
        1.95,
        f"{step.steps} times",
        ha="center",
        va="center",
        fontsize=14,
        weight="bold",
        bbox={"color": "0.95", "pad": 3},
    )


def _pixels(ax: Axes, part: Any, step: Any) -> None:
    """On the right the decoder and its picture; below on the left, dashed, the encoder, for a picture that goes in."""
    _part(ax, (10.85, 3.25), 1.8, "VAE decoder", f"{part.parameters / 1e6:.1f} M, with encoder", COLORS[2])
    _arrow(ax, (10.85, 2.7), (10.85, 2.2))
    ax.text(10.85, 3.93, "after the last step", ha="center", va="center", fontsize=12)
    _thumbnail(ax, step.picture, (10.85, 1.25), size=1.75)
    ax.text(10.85, 0.2, f"picture, {_shape(part.writes)}", ha="center", va="center", fontsize=12)
    _part(ax, (3.1, 0.75), 1.8, "VAE encoder", "picture to latents", COLORS[2], dashed=True)
    ax.text(0.1, 0.75, "image to image:\na picture goes in", va="center", fontsize=12)
    ax.text(4.2, 0.85, "start from its latents and some noise,\ninstead of noise alone", va="center", fontsize=12)
    _arrow(ax, (1.62, 0.75), (2.1, 0.75), linestyle="--")
    ax.plot([2.4, 2.4, 1.43, 1.43], [1.23, 1.45, 1.45, 1.7], "--", color="black", lw=1.5)
    _arrow(ax, (1.43, 1.7), (1.43, 3.2), linestyle="--")


def _part(
    ax: Axes, at: tuple[float, float], width: float, name: str, below: str, colour: str, dashed: bool = False
) -> None:
    box: dict[str, Any] = {"facecolor": colour, "alpha": 0.25, "linewidth": 0}
    if dashed:
        box = {"facecolor": "none", "edgecolor": colour, "linestyle": "--", "linewidth": 1.5}
    ax.add_patch(FancyBboxPatch((at[0] - width / 2, at[1] - 0.4), width, 0.8, "round,pad=0.08", **box))
    ax.text(at[0], at[1] + 0.16, name, ha="center", va="center", weight="bold", fontsize=14)
    ax.text(at[0], at[1] - 0.2, below, ha="center", va="center", fontsize=12)


def _thumbnail(ax, picture, at, above="", below="", size=_LATENT) -> None:
    x, y = at
    half = size / 2
    ax.imshow(picture, extent=(x - half, x + half, y - half, y + half), interpolation="nearest")
    ax.add_patch(Rectangle((x - half, y - half), size, size, fill=False, edgecolor="0.6", linewidth=1))
    ax.text(x, y + half + 0.15, above, ha="center", va="center", fontsize=12)
    ax.text(x, y - half - 0.16, below, ha="center", va="center", fontsize=12)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.5, "shrinkA": 0, "shrinkB": 0, **style})


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def block_shapes(shapes: Mapping[str, Sequence[int]], ax: Axes | None = None) -> Axes:
    """The grid of each block of a U-Net as a bar of its height, with its channels; `shapes`: as `analysis.anatomy.block_shapes` gives them."""
    ax = new_axes(ax, (9.5, 3.8))
    middle = [*shapes].index("middle")
    for x, (channels, height, width) in enumerate(shapes.values()):
        ax.bar(x, height, bottom=-height / 2, color=COLORS[x > middle], alpha=0.75)
        ax.text(x, height / 2, f"{channels}\n{height} x {width}", ha="center", va="bottom", fontsize=small_axes(ax))
    ax.set_xticks(range(len(shapes)), [*shapes])
    ax.set(ylabel="height of the grid", yticks=[])
    ax.grid(False)
    ax.margins(y=0.25)
    return ax
