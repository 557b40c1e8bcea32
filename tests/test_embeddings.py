"""What the denoiser gets of a prompt, and distances of prompts as bags."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdwidgets.analysis.embeddings import bag_distance, linear_map, prompt_arguments, unseen_rate
from tests import tiny


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_arguments_make_the_prompts_picture(family):
    pipe = tiny.pipeline(family)
    run = {"num_inference_steps": 1, "guidance_scale": 3.0, "output_type": "latent", **tiny.SIZE}
    pictures = [
        pipe(**prompt, generator=tiny.generator(), **run).images
        for prompt in ({"prompt": tiny.PROMPT}, prompt_arguments(pipe, tiny.PROMPT))
    ]
    torch.testing.assert_close(*pictures)


def test_a_bag_has_no_order():
    one = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert bag_distance(one, one.flip(0)) == pytest.approx(0, abs=1e-3)
    assert bag_distance(one, 2 * one) == pytest.approx(1, rel=0.5) and bag_distance(one, 0 * one) == pytest.approx(1)
    near = one.flip(0).clone()
    near[0] += torch.tensor([0.0, 0, 0, 0, 0.1])
    assert bag_distance(one, near) == pytest.approx(0.1 / np.linalg.norm(one), rel=1e-3)
    with pytest.raises(ValueError, match="of one shape"):
        bag_distance(one, one[:2])


def test_a_probe_reads_what_is_there_and_nothing_else():
    labels = torch.arange(60) % 3
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    groups = [i // 6 for i in range(60)]
    assert unseen_rate(torch.eye(3)[labels] + 0.1 * noise[:, :3], labels, groups) == 1
    assert unseen_rate(noise, labels, groups) < 0.6
    with pytest.raises(ValueError, match="two or more"):
        unseen_rate(noise, labels, [0] * 60)


def test_a_linear_map_is_found_again():
    generator = torch.Generator().manual_seed(0)
    known, unread, weight, bias = (
        torch.randn(size, generator=generator) for size in ((200, 6), (5, 6), (6, 12), (12,))
    )
    found = linear_map(known, (known @ weight + bias).unflatten(1, (3, 4)), unread, decay=1e-6)
    torch.testing.assert_close(found, (unread @ weight + bias).unflatten(1, (3, 4)), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="as many of one as of the other"):
        linear_map(known, torch.zeros(3, 4, 5), unread)
