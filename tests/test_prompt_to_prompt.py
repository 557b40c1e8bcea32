"""Prompt-to-prompt: what is taken from the first picture, and what is not, on tiny pipelines of the SD and SDXL shapes."""

from __future__ import annotations

import math

import diffusers
import numpy as np
import pytest
import torch

from sdwidgets.analysis.attention import read_tokens
from sdwidgets.analysis.prompt_to_prompt import align, edit
from tests import tiny

BEFORE, AFTER = "a red cat", "a blue horse"
CLOSE = {"atol": 2e-4, "rtol": 1e-3}  # one picture alone, or two in a batch: last bits differ


def edited(pipe, before=BEFORE, after=AFTER, steps=4, guidance=4.0, **settings):
    return edit(pipe, before, after, num_inference_steps=steps, guidance_scale=guidance, **tiny.SIZE, **settings)  # fmt: skip


def words(pipe, text):
    return read_tokens(pipe, text)[0]


# --- the ends of the scale


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_with_no_share_it_is_the_plain_run_of_the_edited_prompt(family, guidance):
    pipe = tiny.pipeline(family)
    result = edited(pipe, guidance=guidance, cross_steps=0, self_steps=0)
    both = pipe([BEFORE, AFTER], generator=[tiny.generator(), tiny.generator()], num_inference_steps=4,
                guidance_scale=guidance, output_type="np", **tiny.SIZE).images  # fmt: skip
    pictures = np.concatenate([result.before.images, result.after.images])
    assert np.array_equal(pictures, (both * 255).round().astype("u1"))  # the same batch: to the last bit
    for prompt, trace in ((BEFORE, result.before), (AFTER, result.after)):
        alone = tiny.run(pipe, steps=4, prompt=prompt, guidance_scale=guidance)
        assert np.abs(trace.images / 255 - alone).max() < 1.5 / 255
    assert (result.cross_calls, result.self_calls) == (0, 0)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_same_prompt_twice_is_the_same_picture(family):
    result = edited(tiny.pipeline(family), after=BEFORE, cross_steps=1, self_steps=1)
    np.testing.assert_allclose(result.after.latents, result.before.latents, **CLOSE)
    assert np.abs(result.after.images.astype(int) - result.before.images).max() <= 1
    assert all(a == b for a, b in result.alignment) and "no change" in repr(result)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_first_picture_is_left_alone(family):
    pipe = tiny.pipeline(family)
    edit_all, edit_none = edited(pipe, cross_steps=1, self_steps=1), edited(pipe, cross_steps=0, self_steps=0)
    assert np.array_equal(edit_all.before.images, edit_none.before.images)
    assert np.array_equal(edit_all.before.latents, edit_none.before.latents)
    assert not np.array_equal(edit_all.after.latents, edit_none.after.latents)


def test_shares_count_steps_from_the_start():
    pipe = tiny.pipeline()
    none = edited(pipe, cross_steps=0, self_steps=0)
    half = edited(pipe, cross_steps=0.5, self_steps=0.25)
    assert (half.cross_calls, half.self_calls) == (2, 1) and len(half.after) == 4
    assert np.array_equal(half.after[0].latents, none.after[0].latents)  # the noise
    assert not np.array_equal(half.after[1].latents, none.after[1].latents)
    late = edited(pipe, cross_steps=1, self_steps=0.25)
    assert np.array_equal(half.after[2].latents, late.after[2].latents)
    assert not np.array_equal(half.after[3].latents, late.after[3].latents)


# --- what a layer answers


def by_hand(attn, hidden, states, values_of, matrix=None, new=None):
    """The answer of one layer for one picture, from Q and K of `hidden`, `states` and the values of `values_of`."""
    heads = []
    width = attn.to_q.out_features // attn.heads
    for n in range(attn.heads):
        part = slice(n * width, (n + 1) * width)
        (qa, qb), (ka, kb) = [
            ((x @ layer.weight.T)[..., part])
            for x, layer in ((torch.stack(hidden), attn.to_q), (torch.stack(states), attn.to_k))
        ]
        weights = torch.softmax(qa @ ka.T / math.sqrt(width), 1)
        if matrix is not None:
            own = torch.softmax(qb @ kb.T / math.sqrt(width), 1)
            weights = torch.where(new, own, weights @ matrix)
            weights = weights / weights.sum(1, keepdim=True)
        heads.append(weights @ (values_of @ attn.to_v.weight.T)[..., part])
    return attn.to_out[0](torch.cat(heads, 1))


@pytest.mark.parametrize("after", [AFTER, "a very blue cat at noon"])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_weights_are_the_first_ones_and_values_its_own(family, after):
    pipe = tiny.pipeline(family)
    seen = {}

    def keep(module, args, kwargs, answer):
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.setdefault(module, (hidden, kwargs.get("encoder_hidden_states"), answer))

    modules = {n: m for n, m in pipe.unet.named_modules() if n.endswith(("attn1", "attn2"))}
    hooks = [m.register_forward_hook(keep, with_kwargs=True) for m in modules.values()]
    try:
        edited(pipe, after=after, steps=1, cross_steps=1, self_steps=1)
    finally:
        for hook in hooks:
            hook.remove()
    matrix, new, _ = align(words(pipe, BEFORE), words(pipe, after))
    assert bool(new.any()) == (after != AFTER)
    with torch.no_grad():
        for name, module in modules.items():
            hidden, states, answer = seen[module]
            asked = hidden if name.endswith("attn1") else states
            mapped = (None, None) if name.endswith("attn1") else (matrix, new)
            expected = by_hand(module, list(hidden[2:]), list(asked[2:]), asked[3], *mapped)
            torch.testing.assert_close(answer[3], expected, atol=1e-5, rtol=1e-4)
            own = by_hand(module, [hidden[2]] * 2, [asked[2]] * 2, asked[2])
            torch.testing.assert_close(answer[2], own, atol=1e-5, rtol=1e-4)


# --- words


def columns_of(pipe, text, word):
    return [t.first for t in words(pipe, text) if t.kind == "text" and text.split()[t.word] == word]


def test_a_word_takes_the_place_of_another_whatever_their_tokens():
    pipe = tiny.pipeline()  # its tokens are letters
    matrix, new, pairs = align(words(pipe, BEFORE), words(pipe, AFTER))
    assert pairs == (("a", "a"), ("red", "blue"), ("cat", "horse")) and not new.any()
    torch.testing.assert_close(matrix.sum(1), torch.ones(77))  # nothing is lost: the shares still sum to one
    red, blue = columns_of(pipe, BEFORE, "red"), columns_of(pipe, AFTER, "blue")
    assert len(red) == 3 and len(blue) == 4
    assert (matrix[red][:, blue] == 1 / 4).all() and matrix[red].sum() == 3
    same, _, _ = align(words(pipe, BEFORE), words(pipe, "a tan dog"))
    assert torch.equal(same, torch.eye(77))


def test_a_new_word_keeps_its_own_attention_and_the_others_theirs():
    pipe = tiny.pipeline()
    longer = "a very red cat at noon"
    matrix, new, pairs = align(words(pipe, BEFORE), words(pipe, longer))
    assert pairs == (("a", "a"), (None, "very"), ("red", "red"), ("cat", "cat"), (None, "at noon"))
    added = [p for w in ("very", "at", "noon") for p in columns_of(pipe, longer, w)]
    assert new.nonzero().flatten().tolist() == added and matrix[:, added].sum() == 0
    for word in ("a", "red", "cat"):
        pair = columns_of(pipe, BEFORE, word), columns_of(pipe, longer, word)
        assert torch.equal(matrix[pair[0]][:, pair[1]], torch.eye(len(pair[0])))
    dropped, new, pairs = align(words(pipe, longer), words(pipe, BEFORE))
    assert ("very", None) in pairs and not new.any()
    assert dropped[added].sum() == 0


def test_start_end_and_padding_go_to_their_like():
    pipe = tiny.pipeline()
    matrix, _, _ = align(words(pipe, "cat"), words(pipe, "horse"))  # ends at 4 and at 6
    assert matrix[0, 0] == 1 and matrix[4, 6] == 1 and matrix[5, 7] == 1
    assert (matrix[74:, 76] == 1).all()  # there is less padding after the longer word
    full, _, _ = align(words(pipe, "cat"), words(pipe, "x" * 90))
    torch.testing.assert_close(full.sum(1), torch.ones(77))


# --- what comes back, and what is refused


def test_both_traces_are_runs_of_one_picture():
    result = edited(tiny.pipeline(), seed=7, negative_prompt="green")
    for prompt, trace in ((BEFORE, result.before), (AFTER, result.after)):
        told = trace.settings
        assert (told.prompt, told.seed, told.negative_prompt) == (prompt, 7, "green") and trace.complete
        assert trace.images.shape == (1, 64, 48, 3) and trace.latents.shape == (4, 1, 4, 8, 6)
        assert trace[0].noise_pred_cond.shape == (1, 4, 8, 6) and trace.final_latents.shape == (1, 4, 8, 6)
    assert np.array_equal(result.before[0].latents, result.after[0].latents)
    assert repr(result) == ("Edit(red -> blue, cat -> horse; cross-attention in 3 of 4 steps, self-attention in 2)")


def test_the_negative_prompt_counts_for_both():
    pipe = tiny.pipeline()
    plain, against = edited(pipe), edited(pipe, negative_prompt="green")
    assert not np.array_equal(plain.before.latents, against.before.latents)
    assert not np.array_equal(plain.after.latents, against.after.latents)


def test_a_stochastic_scheduler_adds_the_same_noise_to_both():
    pipe = tiny.pipeline(scheduler=tiny.sd_scheduler("EulerAncestralDiscreteScheduler"))
    result = edited(pipe, after=BEFORE)
    np.testing.assert_allclose(result.after.latents, result.before.latents, **CLOSE)


def test_all_is_undone_after_an_exception():
    pipe = tiny.pipeline()
    before = pipe.unet.attn_processors

    def stop(pipe, step, timestep, given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edited(pipe, callback_on_step_end=stop)
    assert all(pipe.unet.attn_processors[name] is own for name, own in before.items())
    assert not pipe.unet._forward_pre_hooks and "step" not in vars(pipe.scheduler)


def test_what_cannot_be_edited_is_named():
    pipe = tiny.pipeline()
    for share in (-0.1, 1.1, "half", True, math.nan):
        with pytest.raises(ValueError, match="cross_steps is a share of the steps, from 0"):
            edited(pipe, cross_steps=share)
    with pytest.raises(TypeError, match="edited must be one text, not list"):
        edited(pipe, after=["a", "b"])
    for name in ("generator", "num_images_per_prompt", "prompt_2"):
        with pytest.raises(TypeError, match=f"{name!r} itself; leave it out"):
            edited(pipe, **{name: 2})
    for family in ("sd3", "flux"):
        with pytest.raises(TypeError, match="joint attention"):
            edited(tiny.pipeline(family))
    odd = tiny.pipeline(cls=diffusers.StableDiffusionPAGPipeline, pag_applied_layers="mid")
    with pytest.raises(RuntimeError, match="this one gets 6"):
        edited(odd, pag_scale=2.0)
