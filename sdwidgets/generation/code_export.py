"""A run as the text of a program: the stock diffusers call that makes the same picture."""

from __future__ import annotations

import inspect
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..acceleration.undo import is_fast
from ..loading.turbo import LORA
from ..parts import find_denoiser
from ..trace import CONTROLS
from .changes import changed_parts, freeu

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)[/\\]snapshots[/\\](\w+)$")  # a folder of the hub's cache

NOWHERE = "FOLDER"  # stands for the home of a pipeline that has none


def keywords(pipe: DiffusionPipeline, settings: dict) -> dict:
    """Those of the settings that a call of this pipeline takes. None is left out, and so is an empty negative prompt: to SDXL that is another
    picture than none.
    """
    takes = inspect.signature(type(pipe).__call__).parameters
    # Sizes are those of its pictures.
    taken = (name for name, control in CONTROLS.items() if control.argument and control.page)
    given = {name: settings[name] for name in taken if name in takes and settings.get(name) is not None}
    return {name: value for name, value in given.items() if name != "negative_prompt" or value != ""}


def code(
    pipe: DiffusionPipeline,
    settings: dict,
    scheduler: SchedulerMixin | None = None,
    pictures: dict[str, str] | None = None,
) -> str:
    """The program, as text: imports, loading, scheduler, call, file. Run with the same versions on the same device it makes the
    same picture to the last bit; a pipeline made fast (`speed_up`) differs from it by rounding.

    pipe: the pipeline that ran; its class is named. settings: what `keywords` reads, and the seed.
    scheduler: the diffusers scheduler that ran; None for the pipeline's own.
    pictures: argument of the call ("image", "mask_image") -> path of the file that holds it.
    Every text in it is a Python literal (`repr`), so no prompt can become a statement.
    """
    import diffusers

    pictures, scheduler = pictures or {}, scheduler or pipe.scheduler
    home, denoiser = _Home(pipe), find_denoiser(pipe)
    start, extra = _scheduling(home, pipe, scheduler)
    turbo = _turbo(home, pipe)
    replaced, unknown = _changes(home, pipe, turbo)
    names = {type(pipe).__name__, *([type(scheduler).__name__] if extra is not None else [])}
    lines = ["import torch"]
    lines += [f"from diffusers import {', '.join(sorted(names))}"]
    lines += ["from PIL import Image"] if pictures else []
    lines += ["from sdwidgets.paths import data_folder  # where the models lie that it carries"] * home.carried
    lines += ["from sdwidgets.loading.turbo import with_small_decoder"] * ("with_small_decoder" in "".join(turbo))
    beside = pictures and all("/" not in p and "\\" not in p for p in pictures.values())
    notes = {
        f"# It starts from {' and '.join(sorted(pictures.values()))}: Playground.code(folder) writes them.": beside,
        f'# This pipeline was built in memory: write it with pipe.save_pretrained("{NOWHERE}") first.': home.text == NOWHERE,
        "# It carried an adapter, such as a LoRA: load it with pipe.load_lora_weights(...) after the next line.": getattr(denoiser, "peft_config", None),
        '# The picture was made with speed="fast", and this program computes exactly: they differ by rounding.': is_fast(denoiser),
        f"# Its {' and '.join(unknown)} had other weights than that folder holds, such as those of a fused LoRA, a textual inversion or a training: change them after the next line.": unknown,
    }  # fmt: skip
    loading = [home.expression, *home.keywords, *_precision(pipe, diffusers.__version__), *_left_out(home, pipe)]
    lines += [
        "",
        *(note for note, applies in notes.items() if applies),
        f"pipe = {type(pipe).__name__}.from_pretrained({', '.join(loading)})",
        *turbo,
        *replaced,
    ]
    if any(hasattr(part, "_hf_hook") for part in pipe.components.values()):
        lines += ["pipe.enable_model_cpu_offload()"]
    elif pipe.device.type != "cpu":
        lines += [f"pipe.to({str(pipe.device)!r})"]
    if extra is not None:
        changes = "".join(f", {name}={value!r}" for name, value in extra.items())
        lines += [f"pipe.scheduler = {type(scheduler).__name__}.from_config({start}{changes})"]
    arguments = {name: repr(value) for name, value in keywords(pipe, settings).items()}
    arguments |= {name: f"Image.open({path!r})" for name, path in pictures.items()}
    if pictures and "height" in inspect.signature(type(pipe).__call__).parameters:
        arguments |= {name: repr(settings[name]) for name in ("height", "width") if settings.get(name)}
    arguments["generator"] = f'torch.Generator("cpu").manual_seed({settings["seed"]!r})'
    lines += ["image = pipe(", *(f"    {name}={value}," for name, value in arguments.items()), ").images[0]"]
    lines += ['image.save("picture.png")', "image  # in a notebook this shows it"]
    return "\n".join(lines) + "\n"


class _Home:
    """Where a pipeline was loaded from. `folder`: on this disk, if it is there; `expression`: as a program names it."""

    def __init__(self, pipe: DiffusionPipeline):
        from ..paths import data_folder, from_home

        self.text = str(getattr(pipe, "name_or_path", "") or "")
        path = from_home(self.text)
        self.folder = path if self.text and path.is_dir() else None
        self.keywords, self.carried, self.revision, self.variant = ["use_safetensors=True"], False, "", None
        match = CACHED.search(self.text)
        if match:
            self.text, self.revision = f"{match[1]}/{match[2]}", match[3]
            self.keywords.append(f"revision={self.revision!r}")
        elif self.folder is not None:
            with suppress(FileNotFoundError):
                self.carried = data_folder(path.name).samefile(path)
        elif not self.text:
            self.text = NOWHERE
        else:  # an id of the hub, as diffusers' own from_pretrained keeps it
            self.folder = _cached_folder(self.text)
        self.expression = f"data_folder({path.name!r})" if self.carried else repr(self.text)
        if self.folder is not None:
            from ..loading.checkpoint import check_folder

            with suppress(Exception):  # what it cannot tell, the pipeline's own loading will
                half = getattr(pipe.dtype, "itemsize", 4) < 4
                if variant := check_folder(self.folder, half=half)[0]:
                    self.variant = variant
                    self.keywords.append(f"variant={variant!r}")

    def read(self, *parts: str) -> dict:
        """A JSON file of the folder; {} where there is none."""
        if self.folder is None:
            return {}
        try:
            return json.loads(self.folder.joinpath(*parts).read_text("utf-8"))
        except (OSError, ValueError):
            return {}


def _cached_folder(hub_id: str) -> Path | None:
    """Where the hub's cache keeps the newest of a model that it has."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no possible id
        if isinstance(index := try_to_load_from_cache(hub_id, "model_index.json"), str):
            return Path(index).parent
    return None


def _precision(pipe, version: str) -> list[str]:
    dtype = str(pipe.dtype)
    keyword = "dtype" if tuple(int(n) for n in version.split(".")[:2]) >= (0, 40) else "torch_dtype"
    return [] if dtype == "torch.float32" else [f"{keyword}={dtype}"]


def _turbo(home: _Home, pipe) -> list[str]:
    """What `load(turbo=True)` did after loading: none for another pipeline."""
    if home.folder is None or not vars(find_denoiser(pipe)).get("_sdwidgets_turbo"):
        return []
    extra = lambda name: (
        f'{home.expression} / "extras/{name}"' if home.carried else repr(str(home.folder / "extras" / name))
    )
    lines = [
        f"pipe.load_lora_weights({extra('turbo')}, weight_name={LORA!r})",
        "pipe.fuse_lora()",
        "pipe.unload_lora_weights()",
    ]
    if type(pipe.vae).__name__ == "AsymmetricAutoencoderKL":
        lines += [f"pipe.vae = with_small_decoder(pipe.vae, {extra('small-decoder')})"]
    return lines


def _changes(home: _Home, pipe, turbo: list[str]) -> tuple[list[str], list[str]]:
    """(lines that change the loaded pipeline as this one was changed, names of parts with weights that no folder holds)."""
    lines = [f"pipe.enable_freeu({', '.join(f'{k}={v!r}' for k, v in freeu(pipe).items())})"] if freeu(pipe) else []
    if home.folder is None or turbo:
        return lines, []
    unknown = []
    for name, folder in changed_parts(pipe, home.folder, home.variant).items():
        part = getattr(pipe, name)
        library, width = type(part).__module__.partition(".")[0], str(pipe.dtype)
        if folder is None or library not in ("diffusers", "transformers"):
            unknown.append(name)
            continue
        narrow = f".to({width})" * (width != "torch.float32")
        lines += [
            f"import {library}",
            f"pipe.{name} = {library}.{type(part).__name__}.from_pretrained({str(folder)!r}){narrow}",
        ]
    return lines, unknown


def _left_out(home: _Home, pipe) -> list[str]:
    """Parts that the folder has and this pipeline does not, such as a safety checker that was taken out."""
    stored = {name for name, value in home.read("model_index.json").items() if isinstance(value, list) and value[0]}
    takes = inspect.signature(type(pipe).__init__).parameters
    return [f"{name}=None" for name in sorted(stored & set(takes)) if getattr(pipe, name, None) is None]


def _scheduling(home: _Home, pipe, scheduler) -> tuple[str, dict | None]:
    """(what the program starts from, what it must change); None where the loaded pipeline has this scheduler already."""
    import diffusers

    stored = home.read("scheduler", "scheduler_config.json")
    own = getattr(diffusers, str(stored.get("_class_name")), None)
    loaded = own.from_config(stored) if own is not None else pipe.scheduler
    cls, wanted = type(scheduler), _plain(scheduler.config)
    if type(loaded) is cls and _plain(loaded.config) == wanted:
        return "", None
    got, takes = _plain(cls.from_config(loaded.config).config), inspect.signature(cls.__init__).parameters
    changed = {name: value for name, value in wanted.items() if name in takes and got.get(name) != value}
    return "pipe.scheduler.config", changed


def _plain(config) -> dict:
    """A configuration without its notes on itself, as JSON would give it back."""
    return json.loads(json.dumps({k: v for k, v in config.items() if not k.startswith("_")}, default=str))
