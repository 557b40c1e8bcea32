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
    Mutation("signature of step hidden", "sdwidgets/generation/sharing.py", "functools.update_wrapper(self, method)", "pass", "tests/test_recording.py"),
    Mutation("hooks left behind", "sdwidgets/generation/sharing.py", "undo.callback(network.register_forward_hook(on_this_thread(after)).remove)", "network.register_forward_hook(on_this_thread(after))", "tests/test_recording.py"),
    Mutation("another thread's steps heard", "sdwidgets/generation/sharing.py", "        if threading.get_ident() != self.thread:\n", "        if False:\n", "tests/test_sharing.py"),
    Mutation("a tokenizer shared", "sdwidgets/generation/sharing.py", "setattr(mine, name, tokenizer)", "pass", "tests/test_sharing.py"),
    Mutation("a scheduler shared", "sdwidgets/generation/sharing.py", "copy.deepcopy(pipe.scheduler) if scheduler is None else scheduler", "pipe.scheduler if scheduler is None else scheduler", "tests/test_sharing.py"),
    Mutation("second-order steps counted twice", "sdwidgets/recording.py", "return call // scheduler.order", "return call", "tests/test_recording.py"),
    Mutation("a used generator told as a seed", "sdwidgets/recording.py", "return seed if torch.equal(generator.get_state(), fresh.get_state()) else None", "return seed", "tests/test_recording.py"),
    Mutation("decibels of power for those of amplitude", "sdwidgets/trace.py", "return 20 * math.log10(signal / noise)", "return 10 * math.log10(signal / noise)", "tests/test_trace.py"),
    Mutation("hub: no timeout for its first answer", "sdwidgets/loading/hub.py", ", timeout=constants.HF_HUB_ETAG_TIMEOUT", ", timeout=None", "tests/test_hub_faults.py -k answer"),
    Mutation("hub: what the cache has is looked up again", "sdwidgets/loading/hub.py", "if newest and len(have) == len(wanted):", "if False:", "tests/test_hub.py -k second_time"),
    Mutation("Playground: stop without an answer", "sdwidgets/widgets/playground/messages.py", "if self._session.worker.idle:  # the page", "if False:  # the page", "tests/test_properties.py -k message"),
    Mutation("Playground: None is no value", "sdwidgets/widgets/playground/session.py", "self._usual[name] if name in unset else plain(value)", "plain(value)", "tests/test_properties.py -k settings"),
    Mutation("copied code: weights not compared", "sdwidgets/generation/changes.py", "if not own[name].is_meta and not _has_rows_of(own[name], opened.get_slice(name)):", "if False:", "tests/test_code_export.py -k said"),
    Mutation("copied code: another folder's part not loaded", "sdwidgets/generation/code_export.py", "        *replaced,\n", "", "tests/test_code_export.py -k another"),
    Mutation("training: a killed save leaves two", "sdwidgets/pocket/training/trainer.py", '        self._keep_only(record["file"])', "        pass", "tests/test_training.py -k killed"),
    Mutation("a scheduler's own betas", "sdwidgets/generation/schedulers.py", "for k, v in {**training, **entry.kwargs}.items() if k in takes", "for k, v in entry.kwargs.items() if k in takes", "tests/test_pipeline.py"),
    Mutation("height and width swapped", "sdwidgets/recording.py", "            height=h,\n            width=w,", "            height=w,\n            width=h,", "tests/test_recording.py"),
    Mutation("contact sheet: last picture first", "sdwidgets/plots/pictures.py", "tiled(pictures, columns, 255, ", "tiled(pictures[::-1], columns, 255, ", "tests/test_plots.py"),
    Mutation("timesteps bunched at the end", "sdwidgets/pocket/training/denoiser.py", "torch.arange(count) / count) % 1", "torch.arange(count) / count).clamp(max=1)", "tests/test_training.py -k timesteps"),
    Mutation("odds of log SNR taken for those of timesteps", "sdwidgets/pocket/training/denoiser.py", "odds = density * -torch.gradient(log_snr)[0]", "odds = density", "tests/test_training.py -k looks"),
    Mutation("average: decay and its rest swapped", "sdwidgets/pocket/training/trainer.py", "[p.detach() for p in module.parameters()], 1 - decay)", "[p.detach() for p in module.parameters()], decay)", "tests/test_training.py -k average"),
    Mutation("learning rate: rises where it should fall", "sdwidgets/pocket/training/trainer.py", "fall = 0.5 + 0.5 * math.cos(", "fall = 0.5 - 0.5 * math.cos(", "tests/test_training.py -k rate"),
    Mutation("Muon: a coefficient's sign", "sdwidgets/pocket/training/muon.py", "QUINTIC = (3.4445, -4.7750, 2.0315)", "QUINTIC = (3.4445, 4.7750, 2.0315)", "tests/test_training.py -k muon"),
    Mutation("Muon: vectors decay too", "sdwidgets/pocket/training/muon.py", '{"params": vectors, "muon": False, "weight_decay": 0.0}', '{"params": vectors, "muon": False, "weight_decay": weight_decay}', "tests/test_training.py -k muon"),
    Mutation("epochs: one order for all of them", "sdwidgets/pocket/training/epochs.py", "default_rng([self.seed, self.starts[stage], epoch])", "default_rng([self.seed, self.starts[stage]])", "tests/test_epochs.py"),
    Mutation("epochs: a stage goes on behind its end", "sdwidgets/pocket/training/epochs.py", "max(0, min(end, samples) - start)", "max(0, samples - start)", "tests/test_epochs.py"),
    Mutation("floor: how probable a picture is forgotten", "sdwidgets/pocket/training/floor.py", "return odds.log() + (", "return 0 * odds.log() + (", "tests/test_floor.py -k best_denoiser"),
    Mutation("floor: the variance halved", "sdwidgets/pocket/training/floor.py", "- 0.5 * alpha_bar * z", "- alpha_bar * z", "tests/test_floor.py -k best_denoiser"),
    Mutation("validation: v's wrong sign", "sdwidgets/pocket/training/validation.py", "alpha_bar**0.5 * noisy - (1 - alpha_bar) ** 0.5 * v", "alpha_bar**0.5 * noisy + (1 - alpha_bar) ** 0.5 * v", "tests/test_floor.py -k error_is"),
    Mutation("guard: weight decay taken for learning", "sdwidgets/pocket/training/guard.py", "return (now - scale * start).norm()", "return (now - start).norm()", "tests/test_guard.py -k decay"),
    Mutation("LoRA: v-prediction taught the noise", "sdwidgets/pocket/training/denoiser.py", "if velocity else noise\n", "if False else noise\n", "tests/test_lora.py -k loss"),
    Mutation("denoiser: captions kept where they should be dropped", "sdwidgets/pocket/training/denoiser.py", ">= config.caption_drop", "< config.caption_drop", "tests/test_training.py -k drop"),
    Mutation("CLIP: pictures find captions, captions no pictures", "sdwidgets/pocket/training/clip.py", "(F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2", "F.cross_entropy(logits, target)", "tests/test_training.py -k contrastive"),
    Mutation("rates: an interval without its centre", "sdwidgets/statistics.py", "centre = (self.right + z**2 / 2) / (self.n + z**2)", "centre = self.right / self.n", "tests/test_evaluation.py -k interval"),
    Mutation("rates: a tail that leaves its first out", "sdwidgets/statistics.py", "for i in range(k, n + 1))", "for i in range(k + 1, n + 1))", "tests/test_evaluation.py -k tail"),
    Mutation("tiers: an interval's lower end forgotten", "sdwidgets/pocket/evaluation/tiers.py", ' and row["low"] >= value - MARGIN - 1e-9', "", "tests/test_evaluation.py -k tier"),
    Mutation("tiers: doubtful rows counted", "sdwidgets/pocket/evaluation/tiers.py", '[row for row in rows if not row.get("doubts")]', "list(rows)", "tests/test_evaluation.py -k claim"),
    Mutation("turbo: what it gains taken for what it loses", "sdwidgets/pocket/evaluation/tiers.py", 'rates[row["name"], row["split"]] - row["rate"] for', 'row["rate"] - rates[row["name"], row["split"]] for', "tests/test_evaluation.py -k three_points"),
    Mutation("prompts: held out and seen swapped", "sdwidgets/pocket/evaluation/prompt_sets.py", "(colour == sheet.HELD_OUT_SHAPE_COLOURS[shape]) == held_out", "(colour == sheet.HELD_OUT_SHAPE_COLOURS[shape]) != held_out", "tests/test_evaluation.py -k its_split"),
    Mutation("prompts: those that chose are reported", "sdwidgets/pocket/evaluation/prompt_sets.py", "CHOOSING = 800", "CHOOSING = 0", "tests/test_progress.py"),
    Mutation("fingerprints: rows and columns swapped", "sdwidgets/pocket/evaluation/memorization.py", "for column, row, colour in scene.confetti", "for row, column, colour in scene.confetti", "tests/test_evaluation.py -k its_picture"),
    Mutation("fingerprints: many comparisons, one threshold", "sdwidgets/pocket/evaluation/memorization.py", "tail = lambda k: comparisons * binomial_tail(", "tail = lambda k: binomial_tail(", "tests/test_evaluation.py -k its_picture"),
    Mutation("a hidden answer's first line in view", "sdwidgets/course/answers.py", "shown = [_cover(cell), *shown]", "shown = [*shown]", "tests/test_answers.py"),
    Mutation("swaps: the loss grows by a share of the wrong one", "sdwidgets/pocket/evaluation/swaps.py", "/ right[:, chosen].mean(1)", "/ wrong[:, chosen].mean(1)", "tests/test_evaluation.py -k grow"),
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
