"""Anatomy: what the live pipeline is made of."""

from __future__ import annotations

import pytest

from sdwidgets.analysis.anatomy import anatomy
from tests import tiny


@pytest.fixture(params=["sd", "sdxl", "sd3", "flux"])
def pipe(request):
    return tiny.pipeline(request.param)


def test_parts_are_those_of_the_pipeline_and_leave_no_hook(pipe):
    parts = {part.name: part for part in anatomy(pipe, num_inference_steps=2, output_type="pt")}
    denoiser = "unet" if hasattr(pipe, "unet") else "transformer"
    assert {"text_encoder", denoiser, "vae"} <= set(parts)
    for name, part in parts.items():
        module = getattr(pipe, name)
        assert part.parameters == sum(p.numel() for p in module.parameters())
        watched = module.decoder if name == "vae" else module
        assert not watched._forward_hooks and not watched._forward_pre_hooks
    assert parts[denoiser].calls >= 2 and parts["vae"].calls == 1
    assert parts["vae"].writes[0] == 3


def test_hooks_are_gone_after_a_failure(pipe):
    with pytest.raises(ValueError, match="has to be of type `str` or `list`"):
        anatomy(pipe, prompt=3, num_inference_steps=2)
    assert not pipe.vae.decoder._forward_hooks and not pipe.vae.decoder._forward_pre_hooks
