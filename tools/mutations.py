"""`python tools/mutations.py`: break the package in one place at a time, and see that a test notices.

Each row is a mistake that a person could make: a sign, a time step, two channels. It is made in a copy of the checkout, the tests
that should notice run on the copy, and a mistake that none of them notices is told; then the command ends with 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("sdwidgets", "tests", "notebooks", "tools", "bench", "slides", "docs")
LINKED = ("data", "pyproject.toml", "README.md", "Makefile", "CONTRIBUTING.md", "requirements.lock", ".git")


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in `file`, becomes `new`; `tests`: arguments of pytest that should fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation("v: wrong sign", "sdwidgets/latents.py", "return alpha * sample - noise * model_output", "return alpha * sample + noise * model_output", "tests/test_latents.py"),
    Mutation("epsilon: alpha forgotten", "sdwidgets/latents.py", "return (sample - noise * model_output) / alpha", "return sample - noise * model_output", "tests/test_latents.py"),
    Mutation("flow: sigma for alpha", "sdwidgets/latents.py", "return sample - sigma * model_output", "return sample - alpha * model_output", "tests/test_latents.py"),
    Mutation("variance exploding samples left as they are", "sdwidgets/latents.py", 'if process == "ve":\n        sample = sample * alpha', 'if process == "ve":\n        sample = sample', "tests/test_latents.py tests/test_recording.py"),
    Mutation("scaling factor upside down", "sdwidgets/latents.py", "return latents * std / factor + mean", "return latents * std * factor + mean", "tests/test_latents.py"),
    Mutation("red and blue swapped", "sdwidgets/latents.py", "return np.rint(rgb * 255).astype(np.uint8)", "return np.rint(rgb * 255).astype(np.uint8)[..., ::-1]", "tests/test_latents.py"),
    Mutation("rounding cut off", "sdwidgets/latents.py", "return np.rint(rgb * 255).astype(np.uint8)", "return (rgb * 255).astype(np.uint8)", "tests/test_latents.py"),
    Mutation("preview fitted without a bias", "sdwidgets/latents.py", "np.concatenate([cells, np.ones_like(cells[:, :1])], 1)", "np.concatenate([cells, np.zeros_like(cells[:, :1])], 1)", "tests/test_latents.py"),
    Mutation("FLUX: rows and columns of a token swapped", "sdwidgets/latents.py", "blocks.transpose(0, 3, 1, 4, 2, 5)", "blocks.transpose(0, 3, 1, 5, 2, 4)", "tests/test_latents.py tests/test_recording.py"),
    Mutation("guidance: the halves swapped", "sdwidgets/recording.py", "return tuple(self.outputs[0].chunk(2))", "return tuple(self.outputs[0].chunk(2))[::-1]", "tests/test_recording.py"),
    Mutation("FLUX: the halves swapped", "sdwidgets/recording.py", "return self.outputs[1], self.outputs[0]", "return self.outputs[0], self.outputs[1]", "tests/test_recording.py"),
    Mutation("sigma of the next step", "sdwidgets/recording.py", "sigma = self.scheduler.sigmas[self.scheduler.step_index - 1]", "sigma = self.scheduler.sigmas[self.scheduler.step_index]", "tests/test_recording.py"),
    Mutation("latents after the step for those before it", "sdwidgets/recording.py", 'arguments["sample"].detach().clone()', 'step(*args, **kwargs)[0].detach().clone()', "tests/test_recording.py"),
    Mutation("outputs of a step kept for the next", "sdwidgets/recording.py", "        self.outputs.clear()\n", "", "tests/test_recording.py"),
    Mutation("CUDA graph's memory not copied", "sdwidgets/recording.py", "self.outputs.append(output.detach().clone())", "self.outputs.append(output.detach().mul_(1.0).add_(1e-3))", "tests/test_recording.py"),
    Mutation("signature of step hidden", "sdwidgets/recording.py", "functools.update_wrapper(self, method)", "pass", "tests/test_recording.py"),
    Mutation("hooks left behind", "sdwidgets/recording.py", "undo.callback(self.denoiser.register_forward_hook(self.after_denoiser).remove)", "self.denoiser.register_forward_hook(self.after_denoiser)", "tests/test_recording.py"),
    Mutation("second-order steps counted twice", "sdwidgets/recording.py", "return call // scheduler.order", "return call", "tests/test_recording.py"),
    Mutation("a used generator told as a seed", "sdwidgets/recording.py", "return seed if torch.equal(generator.get_state(), fresh.get_state()) else None", "return seed", "tests/test_recording.py"),
    Mutation("decibels of power for those of amplitude", "sdwidgets/trace.py", "return 20 * math.log10(signal / noise)", "return 10 * math.log10(signal / noise)", "tests/test_trace.py"),
    Mutation("a scheduler's own betas", "sdwidgets/generation/schedulers.py", "for k, v in {**training, **entry.kwargs}.items() if k in takes", "for k, v in entry.kwargs.items() if k in takes", "tests/test_pipelines.py"),
    Mutation("height and width swapped", "sdwidgets/recording.py", "            height=h,\n            width=w,", "            height=w,\n            width=h,", "tests/test_recording.py"),
    Mutation("contact sheet: last picture first", "sdwidgets/plots.py", "_tiled(pictures, columns, 255, ", "_tiled(pictures[::-1], columns, 255, ", "tests/test_plots.py"),
    Mutation("timesteps bunched at the end", "sdwidgets/pocket/training/denoiser.py", "torch.arange(count) / count) % 1", "torch.arange(count) / count).clamp(max=1)", "tests/test_training.py -k timesteps"),
    Mutation("odds of log SNR taken for those of timesteps", "sdwidgets/pocket/training/denoiser.py", "odds = density * -torch.gradient(log_snr)[0]", "odds = density", "tests/test_training.py -k looks"),
)  # fmt: skip


def copy_checkout(folder: Path) -> None:
    """What the tests need: code copied, since it is changed, and data only linked."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "build", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


def noticed(mutation: Mutation) -> bool:
    """Whether a test fails on a copy with this mistake in it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copy_checkout(folder)
        file = folder / mutation.file
        text = file.read_text(encoding="utf-8")
        if text.count(mutation.old) != 1:
            raise RuntimeError(f"{mutation.name}: the code has moved on, bring the row up to date")
        file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutation.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 5: no test was chosen, 2: it does not even run
            raise RuntimeError(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
        return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORDS", help="only mistakes whose name holds these words")
    words = parser.parse_args().only
    missed = 0
    for mutation in MUTATIONS:
        if words in mutation.name:
            seen = noticed(mutation)
            missed += not seen
            print(f"{'noticed' if seen else 'MISSED '}  {mutation.name}", flush=True)
    print(f"{missed} of the mistakes went unnoticed" if missed else "every mistake was noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
