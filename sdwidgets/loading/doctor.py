"""What this machine can run: `preflight()` looks, `sdwidgets doctor` prints it. Neither ever raises."""

from __future__ import annotations

import glob
import html
import importlib.metadata
import itertools
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .catalog import MODELS, Model
from .memory import free_bytes, free_disk, free_ram, gigabytes, total_ram

PACKAGES = (
    "sdwidgets torch diffusers transformers accelerate safetensors huggingface_hub numpy pillow matplotlib "
    "ipywidgets anywidget jupyterlab playwright"
).split()
CHOOSE_BUILD = "run `make install TORCH=cuda` in the repository, or choose the CUDA build on pytorch.org"


class Report(dict):
    """What `preflight` found, JSON-able; it prints itself as text, and a notebook shows the models as a table."""

    def __repr__(self) -> str:
        return describe(self)

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        """For a notebook, which is stored and shared: no path of this machine is in it."""
        return dict.fromkeys(("text/markdown", "text/plain"), as_table(self))

    def _ipython_display_(self) -> None:
        """IPython prints a dict's plain text by rules of its own, whatever its bundle says."""
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)


def preflight() -> Report:
    """Look at this machine. Sizes are in bytes; `problems` holds sentences, each with its remedy.

    Keys: python, platform, packages, torch, nvidia, device, memory, disk, pocket, models, browser, problems.
    """
    problems: list[str] = []

    def look(what: str, probe: Callable, default=None):
        try:
            return probe()
        except Exception as error:  # a doctor that falls ill helps nobody
            first = (str(error).strip().splitlines() or [""])[0][:160]
            problems.append(f"Could not look at {what}: {first} ({type(error).__name__}).")
            return default

    report = Report(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=look("the installed packages", lambda: {name: installed_version(name) for name in PACKAGES}, {}),
        nvidia=look("the NVIDIA card", find_nvidia, []),
        torch=look("PyTorch", _torch, {}),
        memory={"total": look("memory", total_ram), "free": look("memory", free_ram)},
        disk=look("the disk", _disk, {}),
        browser=look("the browser", find_browser),
    )
    report["device"] = look("the device", _device, {}) if report["torch"] else {}
    report["pocket"] = look("Pocket", _pocket, {"present": False})
    report["models"] = [
        look(row.name, lambda row=row: _fit(row, report), {"name": row.name}) for row in MODELS.values()
    ]
    report["problems"] = problems + look("what is missing", lambda: _problems(report), [])
    return report


def installed_version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> dict:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if getattr(torch.version, "hip", None):
        build = f"ROCm {torch.version.hip}"
    return {
        "version": torch.__version__,
        "build": build,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
    }


def find_nvidia(root: str | os.PathLike = "/") -> list[str]:
    """Names of the NVIDIA cards that the machine has, whether or not PyTorch can use them.

    Asked: nvidia-smi, then the driver's /proc entries, then the PCI bus (vendor 0x10de, class display).
    """
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):  # not installed, out of order, or too slow
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        if names := [line.strip() for line in answer.splitlines() if line.strip()]:
            return names
    root = Path(root)
    names = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        names.append(lines.get("Model", "NVIDIA card").strip())
    if names:
        return names
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        with suppress(OSError):
            vendor, kind = (device / "vendor").read_text().strip(), (device / "class").read_text().strip()
            if vendor == "0x10de" and kind.startswith("0x03"):  # 03: display controllers
                names.append("NVIDIA card on the PCI bus")
    return names


BROWSERS = "chromium chromium-browser google-chrome google-chrome-stable chrome microsoft-edge msedge".split()
MAC_BROWSERS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PLAYWRIGHT_CACHES = (".cache/ms-playwright", "Library/Caches/ms-playwright", "AppData/Local/ms-playwright")


def find_browser() -> str | None:
    """A Chromium that starts, for the browser tests: $CHROMIUM, one that is installed, or playwright's own."""
    caches = [os.environ.get("PLAYWRIGHT_BROWSERS_PATH"), *(Path.home() / cache for cache in PLAYWRIGHT_CACHES)]
    builds = ("chrome-linux*/chrome", "chrome-mac*/*.app/Contents/MacOS/*", "chrome-win*/chrome.exe")
    own = (sorted(glob.glob(f"{cache}/chromium-*/{build}"))[-1:] for cache in caches if cache for build in builds)
    candidates = (os.environ.get("CHROMIUM"), *BROWSERS, *MAC_BROWSERS, *itertools.chain.from_iterable(own))
    paths = (shutil.which(candidate) for candidate in candidates if candidate)
    return next((path for path in paths if path and _starts(path)), None)


def _starts(browser: str) -> bool:
    """A package may be a stub, or miss a system library."""
    try:
        return subprocess.run([browser, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _disk() -> dict:
    from huggingface_hub import constants

    return {"folder": constants.HF_HUB_CACHE, "free": free_disk(constants.HF_HUB_CACHE)}


def _device() -> dict:
    from .devices import choose_device, choose_dtype

    device, why = choose_device()
    dtype, why_dtype = choose_dtype("auto", device)
    reasons = "; ".join(w for w in (why, why_dtype) if w)
    return {
        "name": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "itemsize": dtype.itemsize,
        "why": reasons,
        "free": free_bytes(device),
    }


def _pocket() -> dict:
    from ..paths import data_folder
    from .checkpoint import check_folder, read_header

    try:
        folder = data_folder("pocket")
        _, files = check_folder(folder)
    except (FileNotFoundError, RuntimeError) as error:
        return {"present": False, "why": str(error)}
    shapes = [t["shape"] for paths in files.values() for p in paths for t in read_header(p).values()]
    size = sum(p.stat().st_size for paths in files.values() for p in paths)
    return {"present": True, "folder": str(folder), "bytes": size, "tensors": len(shapes)}


def _fit(row: Model, report: Report) -> dict:
    """How a model of the table would run here: "yes", "in parts" (moved to the card in turn), or "no"."""
    device = report["device"]
    itemsize = device.get("itemsize", 4)
    need, free, ram = row.memory(itemsize), device.get("free"), report["memory"]["free"]
    if free is None:
        fits = "unknown"
    elif need <= free:
        fits = "yes"
    elif device.get("name", "").startswith("cuda") and ram is not None and need <= ram:
        fits = "in parts"
    else:
        fits = "no"
    download = row.download if itemsize == 2 else row.download_full
    room = report["disk"].get("free")
    return {
        "name": row.name,
        "fits": fits,
        "memory": need,
        "download": download,
        "disk": room is None or download < room,
        "gated": row.gated,
        "licence": row.licence,
    }


def _problems(report: Report) -> list[str]:
    problems = []
    missing = [n for n in ("torch", "diffusers", "transformers", "accelerate") if not report["packages"].get(n)]
    if missing:
        problems.append(f"Not installed: {', '.join(missing)}; run `make install`, or `pip install sdwidgets`.")
    torch, cards = report["torch"], report["nvidia"]
    if cards and torch and not torch["cuda"]:
        card = cards[0]
        if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
            problems.append(f"{card} is here, but CUDA_VISIBLE_DEVICES hides it; unset that variable to use it.")
        elif torch["build"] == "CPU only":
            problems.append(
                f"{card} is here, but this PyTorch ({torch['version']}) is a CPU-only build: {CHOOSE_BUILD}."
            )
        else:
            problems.append(
                f"{card} is here and this PyTorch is built for {torch['build']}, but cannot reach it: the driver "
                "is missing or too old. Install a current NVIDIA driver, until `nvidia-smi` works."
            )
    if not report["pocket"].get("present"):
        problems.append(f"Pocket is not usable: {report['pocket'].get('why', 'its files were not found')}")
    free = report["memory"]["free"]
    if free is not None and free < 1_500_000_000:
        problems.append(f"Only {gigabytes(free)} of memory are free; close other programs before loading a model.")
    return problems


def as_table(report: Report) -> str:
    """The device, the free memory and what each model needs, as markdown."""
    device, free = report["device"], report["memory"]["free"]
    text = lambda value: html.escape(str(value)).replace("|", "&#124;")
    size = lambda count: gigabytes(count) if count else "none"
    own = gigabytes(device["free"]) if device.get("free") and device["name"] != "cpu" else None
    lines = [
        f"**Device**: {text(device['name'])} in {text(device['dtype'])}" if device else "**Device**: unknown",
        f"**Free memory**: {'unknown' if free is None else gigabytes(free)}"
        + (f", {own} on the device" if own else ""),
    ]
    rows = [
        f"| {row['name']} | {row['fits']} | {size(row['memory'])} | {size(row['download'])} |"
        for row in report["models"]
        if "fits" in row
    ]
    head = "| Model | fits here | memory | download |\n|:-|:-|-:|-:|"
    problems = [f"**Problem**: {text(problem)}" for problem in report["problems"]]
    return "\n\n".join([*lines, "\n".join([head, *rows]), *problems])


def describe(report: Report) -> str:
    """The report as lines of text."""
    torch, device, memory, disk = (report[key] for key in ("torch", "device", "memory", "disk"))

    def size(count: int | None) -> str:
        return "unknown" if count is None else gigabytes(count)

    lines = [
        ("Python", f"{report['python']} on {report['platform']}"),
        ("PyTorch", f"{torch['version']}, {torch['build']}, {torch['threads']} threads" if torch else "not usable"),
        ("Device", f"{device['name']} in {device['dtype']} ({device['why']})" if device else "unknown"),
        ("NVIDIA", ", ".join(report["nvidia"]) or "no card found"),
        ("Memory", f"{size(memory['free'])} free of {size(memory['total'])}"),
        ("Disk", f"{size(disk.get('free'))} free for downloads in {disk.get('folder', 'the cache')}"),
        ("Pocket", "here" if report["pocket"].get("present") else "not usable"),
        ("Browser", report["browser"] or "no Chromium found: the browser tests are left out"),
        ("Packages", ", ".join(f"{n} {v or 'missing'}" for n, v in report["packages"].items())),
    ]
    text = [f"{label:<9} {value}" for label, value in lines]
    text += ["", f"{'Model':<13}{'fits':<10}{'memory':>9}{'download':>10}  licence"]
    for row in report["models"]:
        if "fits" in row:
            gate = " (sign in at the hub first)" if row["gated"] else ""
            room = "" if row["disk"] else " (the disk is too small)"
            download = gigabytes(row["download"]) if row["download"] else "none"
            text.append(
                f"{row['name']:<13}{row['fits']:<10}{gigabytes(row['memory']):>9}"
                f"{download:>10}  {row['licence']}{gate}{room}"
            )
    text += ["", *(f"Problem: {p}" for p in report["problems"])] if report["problems"] else ["", "No problems found."]
    return "\n".join(text)
