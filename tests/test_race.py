"""The race: what it records is what each scheduler does alone; and the view over traces. Real tiny pipelines."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest

import sdwidgets
from sdwidgets.analysis.sampling import run_with, temporarily
from sdwidgets.generation.schedulers import make_scheduler
from sdwidgets.widgets.race import SchedulerRace, race
from tests import tiny
from tests.test_replay import EVIL, a_trace, unpack


def a_race(labels=("DDIM", "Euler", "DPM++ 2M"), steps=(4, 6, 5), reference=True, previews=False, **options):
    """Runs by hand: same prompt and seed, other lengths; `options` go to the view."""
    settings = {"prompt": options.pop("prompt", "a cat")}
    traces = {label: a_trace(steps=n, previews=previews, **settings) for label, n in zip(labels, steps, strict=True)}
    far = a_trace(steps=9, previews=False, **settings) if reference else None
    return SchedulerRace(traces, far, sentences={labels[0]: "Walks straight."}, **options)


# ---- recording ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_race_is_each_scheduler_alone_from_the_same_noise(family):
    pipe = tiny.pipeline(family)
    own = pipe.scheduler
    raced = race(
        pipe, tiny.PROMPT, schedulers=("DDIM", "heun", "DPM++ 2M"), num_inference_steps={"DDIM": 4, "heun": 3, "DPM++ 2M": 4},
        seed=5, reference="Euler", reference_steps=6, previews=False, **tiny.SIZE,
    )  # fmt: skip
    assert pipe.scheduler is own
    assert [len(trace) for trace in raced.traces.values()] == [4, 5, 4] and len(raced.reference) == 6
    for label, trace in raced.traces.items():
        pipe.scheduler = make_scheduler(label, pipe)
        alone = tiny.run(pipe, seed=5, steps={"DDIM": 4, "Heun": 3, "DPM++ 2M": 4}[label])
        assert np.array_equal((alone * 255).round().astype(np.uint8), trace.images)
    start = [trace[0].scaled_latents for trace in raced.traces.values()]
    assert np.allclose(start[0], start[2])  # Heun's first sigma is its own; its noise is the same times that
    assert np.corrcoef(start[0].ravel(), start[1].ravel())[0, 1] > 0.999


def test_the_scheduler_is_put_back_when_a_run_fails():
    pipe = tiny.pipeline()
    own = pipe.scheduler
    with pytest.raises(ValueError, match="divisible by 8"):
        run_with(pipe, "Euler", tiny.PROMPT, num_inference_steps=2, height=63, width=64)
    assert pipe.scheduler is own


def test_a_lora_is_there_for_a_block_and_gone_after(tmp_path):
    import torch

    from sdwidgets.pocket.training.lora import add_lora, save_lora

    pipe = tiny.pipeline(unet=copy.deepcopy(tiny.pipeline().unet))
    plain = tiny.run(pipe)
    with torch.no_grad():
        for parameter in add_lora(pipe.unet, 2, ("to_v", "conv1")):
            parameter.fill_(0.5)
    save_lora(pipe.unet, tmp_path)
    pipe = tiny.pipeline(unet=copy.deepcopy(tiny.pipeline().unet))
    own = pipe.scheduler
    with temporarily(pipe, scheduler=make_scheduler("Euler", pipe), lora=tmp_path):
        assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
        pipe.scheduler = own
        assert not np.allclose(tiny.run(pipe), plain, atol=1e-3)
    assert pipe.scheduler is own and np.allclose(tiny.run(pipe), plain, atol=1e-6)


def test_previews_go_through_the_decoder():
    raced = race(
        tiny.pipeline(), tiny.PROMPT, schedulers=("DDIM", "Euler"), num_inference_steps=2, reference=None, **tiny.SIZE
    )
    assert all(len(trace.previews) == 2 for trace in raced.traces.values()) and raced.distances == {}
    assert all("picture" in frame for run in raced.data["runs"] for frame in run["frames"][:-1])


def test_a_race_that_is_none_is_refused_before_anything_runs():
    pipe = tiny.pipeline()
    pipe.unet = None  # would fail at its first call
    with pytest.raises(ValueError, match=r"no scheduler 'Oiler'.*Did you mean 'Euler'"):
        race(pipe, "a cat", schedulers=("DDIM", "Oiler"))
    with pytest.raises(ValueError, match="two or more different schedulers"):
        race(pipe, "a cat", schedulers=("DDIM", "ddim"))
    with pytest.raises(ValueError, match="names no number for 'Euler'"):
        race(pipe, "a cat", schedulers=("DDIM", "Euler"), num_inference_steps={"DDIM": 3})


# ---- the view ----------------------------------------------------------------------------------------------------


def test_distances_are_root_mean_squares_to_the_reference():
    shown = a_race()
    far = shown.reference.final_latents[0]
    for label, trace in shown.traces.items():
        wanted = [np.sqrt(((step.pred_original[0] - far) ** 2).mean()) for step in trace]
        assert np.allclose(shown.distances[label], [*wanted, 0], atol=1e-6)  # made by hand, they end alike
    assert a_race(reference=False).distances == {} and a_race(reference=False).data["reference"] is None


def test_every_call_has_a_frame_and_arrays_travel_within_half_a_unit():
    shown = a_race()
    assert [run["label"] for run in shown.data["runs"]] == ["DDIM", "Euler", "DPM++ 2M"]
    for run, trace in zip(shown.data["runs"], shown.traces.values(), strict=True):
        assert len(run["frames"]) == len(trace) + 1 == len(run["distances"])
        for frame, step in zip(run["frames"], trace, strict=False):
            for name, array in (("x0", step.pred_original[0]), ("xt", step.scaled_latents[0])):
                assert np.abs(unpack(frame[name]) - array).max() <= frame[name]["scale"] / 2 + 1e-6
    assert "measured by DDIM after 9 calls" in shown.data["line"] and "seed 7" in shown.data["line"]


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ({"one": a_trace()}, "two to 6 runs, not 1"),
        ({"one": a_trace(), "two": sdwidgets.Trace()}, "'two' has no recorded steps"),
        ({"one": a_trace(), "two": "trace.safetensors"}, "'two' has no recorded steps"),
        ({"one": a_trace(), "two": a_trace(height=16)}, "differ in size"),
        ({"one": a_trace(), "two": a_trace(prompt="a dog")}, "differ in prompt or seed"),
        ({"one": a_trace(), "two": a_trace(seed=1)}, "differ in prompt or seed"),
    ],
)
def test_what_is_no_race_is_refused(traces, message):
    with pytest.raises(ValueError, match=message):
        SchedulerRace(traces)


@pytest.mark.parametrize(
    ("state", "message"),
    [({"at": 1.5}, "0 to 1"), ({"by": "time"}, "'share' or 'calls'"), ({"show": "eps"}, "'x0' or 'xt'")],
)
def test_a_state_that_there_is_not_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        a_race().set(**state)


def test_a_prompt_stays_text():
    html = a_race(prompt=EVIL).to_html()
    assert "<img src=x" not in html and "<script>alert" not in html


def test_the_still_shows_every_run():
    still = a_race(previews=True).static_image()
    assert still.height > 3 * 100 and len(still.getcolors(maxcolors=2**24)) > 100


def test_it_needs_no_torch():
    code = "import sys, sdwidgets; sdwidgets.SchedulerRace, sdwidgets.NoiseExplorer; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
