"""`load` in a process of its own, against a hub on loopback: the client, a tiny model for the hub, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from tests import tiny

PATIENCE = 300  # seconds that any answer may take; most take one

# The hub's client reads its environment when it is imported, so it runs in a process of its own.
CLIENT = """
import contextlib, io, json, os, sys, torch
from sdwidgets.loading import hub, waiting
from sdwidgets.loading.errors import LoadError
from sdwidgets.loading.pipeline import load
torch.set_num_threads(1)
waiting.WINDOW = 3
free_disk = hub.free_disk
for line in sys.stdin:
    arguments, out = json.loads(line), io.StringIO()
    room = arguments.pop("room", None)
    hub.free_disk = free_disk if room is None else lambda folder: room
    os.environ["HF_TOKEN"] = arguments.pop("token", "")
    try:
        with contextlib.redirect_stdout(out):
            pipe = load(device="cpu", **arguments)
        answer = {"pipeline": type(pipe).__name__, "dtype": str(pipe.unet.dtype),
                  "sum": float(sum(p.detach().double().sum() for p in pipe.unet.parameters()))}
    except LoadError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer | {"printed": out.getvalue()}), flush=True)
"""


class Client:
    """`client(name=...)` is `load` in the other process, with a token or a disk of `room` bytes: what came of it."""

    def __init__(self, home: Path, url: str, **environment: str):
        environment = {
            **os.environ,
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "SDWIDGETS_CACHE": str(home / "sdwidgets"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            "NO_PROXY": "127.0.0.1,localhost",
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[1],
        )

    def begin(self, **arguments) -> None:
        arguments = {"dtype": "float32", **arguments}
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()

    def __call__(self, **arguments) -> dict:
        self.begin(**arguments)
        bound = threading.Timer(PATIENCE, self.process.kill)
        bound.start()
        try:
            return json.loads(self.process.stdout.readline())
        finally:
            bound.cancel()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def save_model(folder: Path) -> Path:
    """A tiny pipeline in float32 and fp16, with things beside it that must not be fetched."""
    pipe = tiny.pipeline("sd")
    pipe.save_pretrained(folder)
    pipe.save_pretrained(folder, variant="fp16")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04 a pickle")
    (folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"not needed")
    (folder / "model.ckpt").write_bytes(b"\x80\x04 a pickle")
    (folder / "unet" / "modeling.py").write_text("raise SystemExit('code of a model was run')")
    return folder


def sum_of_weights() -> float:
    """What a client that has loaded that model answers as "sum"."""
    return float(sum(p.detach().double().sum() for p in tiny.pipeline("sd").unet.parameters()))
