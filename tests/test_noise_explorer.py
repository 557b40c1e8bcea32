"""The noise explorer: what it is given, what it refuses, what it draws. No pipeline."""

from __future__ import annotations

import numpy as np
import pytest

from sdwidgets.analysis import noise_schedules
from sdwidgets.widgets.noise_explorer import NoiseExplorer
from tests.test_replay import EVIL, unpack


def an_explorer(channels=4, height=8, width=6, **options) -> NoiseExplorer:
    rng = np.random.default_rng(0)
    latents, eps = rng.normal(size=(2, channels, height, width)).astype(np.float32)
    factors = rng.normal(size=(channels + 1, 3)).astype(np.float32) / 4
    return NoiseExplorer(latents, eps, **{"factors": factors, **options})


def test_it_mixes_as_the_schedule_says():
    shown = an_explorer()
    for label in noise_schedules.SCHEDULES:
        schedule = noise_schedules.schedule(label)
        wanted = schedule.signal[700] * shown.latents + schedule.noise[700] * shown.noise
        assert np.allclose(shown.noised(label, 700), wanted, atol=1e-6)
    assert np.allclose(shown.noised("flow", 999), shown.noise) and np.allclose(
        shown.noised("zero SNR", 999), shown.noise
    )


def test_what_the_page_gets_is_enough_to_mix():
    shown = an_explorer()
    for key, array in (("x0", shown.latents), ("noise", shown.noise)):
        assert np.abs(unpack(shown.data[key]) - array).max() <= shown.data[key]["scale"] / 2 + 1e-6
    for told, label in zip(shown.data["schedules"], noise_schedules.SCHEDULES, strict=True):
        signal = np.array(told["signal"])
        noise_level = 1 - signal if told["kind"] == "flow" else np.sqrt(1 - signal**2)
        assert told["label"] == label and np.allclose(noise_level, noise_schedules.schedule(label).noise, atol=2e-3)


def test_own_schedules_and_state():
    ours = [noise_schedules.linear(50), noise_schedules.cosine(50)]
    shown = an_explorer(schedules=ours, t=49, schedule="cosine")
    assert shown.state == {"t": 49, "schedule": "cosine"} and an_explorer(schedules=ours).state["t"] == 49
    assert an_explorer().set(t=12.0).state["t"] == 12
    with pytest.raises(ValueError, match="t runs from 0 to 49, not 50"):
        shown.set(t=50)
    with pytest.raises(ValueError, match="no schedule 'flow' here; there are: linear, cosine"):
        shown.set(schedule="flow")
    with pytest.raises(TypeError, match="has no 'speed' to set"):
        shown.set(speed=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedules": ("linear",)}, "two to 6 schedules"),
        ({"schedules": ("linear", "linear")}, "a label of its own"),
        ({"schedules": (noise_schedules.linear(50), noise_schedules.cosine(60))}, r"lengths \[50, 60\]"),
        ({"schedules": ("linear", "sine")}, "there is no schedule 'sine'"),
        ({"factors": np.zeros((4, 3))}, r"they are \(channels \+ 1, 3\)"),
        ({"picture": np.zeros((8, 8, 3))}, "uint8, not float64"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        an_explorer(**options)
    with pytest.raises(ValueError, match="both are one picture's"):
        NoiseExplorer(np.zeros((1, 4, 8, 8)), np.zeros((1, 4, 8, 8)))


def test_text_stays_text():
    evil = noise_schedules.Schedule(EVIL, *(lambda s: (s.signal, s.noise))(noise_schedules.linear()), sentence=EVIL)
    html = an_explorer(schedules=(evil, noise_schedules.cosine())).to_html()
    assert "<img src=x" not in html and "<script>alert" not in html


def test_the_still_fades_from_picture_to_noise():
    still = np.asarray(an_explorer(factors=None).static_image().convert("L"), np.float32)
    assert still.shape[0] > 5 * 100 and still.std() > 5
