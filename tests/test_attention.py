"""Cross-attention as it is recorded: against the formula written out, on tiny pipelines of the SD and SDXL shapes."""

from __future__ import annotations

import copy
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0

import sdwidgets
from sdwidgets.analysis.attention import read_tokens, record_attention
from sdwidgets.analysis.attention_processors import probabilities, processors_replaced
from sdwidgets.widgets.playground import driver
from tests import tiny

FLOAT16 = 2e-3  # the shares are kept in float16, up to a hundred of them are summed
LONG = "a green cat " + "on a blue background " * 5


def recorded(pipe, **settings):
    with record_attention(pipe) as maps:
        pictures = tiny.run(pipe, **settings)
    return maps, pictures


# --- the pipeline stays as it is


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_picture_is_the_same_to_the_last_bit(family, guidance):
    pipe = tiny.pipeline(family)
    bare = tiny.run(pipe, guidance_scale=guidance)
    before = pipe.unet.attn_processors
    maps, pictures = recorded(pipe, guidance_scale=guidance)
    assert np.array_equal(pictures, bare)
    assert len(maps) == 3 and len(maps.layers) == {"sd": 4, "sdxl": 8}[family]
    after = pipe.unet.attn_processors
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)
    assert "encode_prompt" not in vars(pipe) and not pipe.unet._forward_pre_hooks and not pipe.unet._forward_hooks


def test_all_is_undone_after_an_exception():
    pipe = tiny.pipeline()
    before = pipe.unet.attn_processors

    def stop(pipe, step, timestep, given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), record_attention(pipe) as maps:
        tiny.run(pipe, callback_on_step_end=stop)
    assert all(pipe.unet.attn_processors[name] is own for name, own in before.items())
    assert "encode_prompt" not in vars(pipe) and not pipe.unet._forward_pre_hooks and not pipe.unet._forward_hooks
    assert len(maps) == 1 and maps.at(0, 0).shape[0] == len(maps.tokens)  # what was seen is kept


def test_a_call_that_breaks_off_is_no_step():
    pipe, calls = tiny.pipeline(), []

    def fail(module, args, output):
        calls.append(0)
        if len(calls) == 2:
            raise RuntimeError("the device is lost")

    hook = pipe.unet.mid_block.register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="lost"), record_attention(pipe) as maps:
            tiny.run(pipe)
        assert len(maps) == 1 and maps.heat_map("blue").shape == (8, 6)
        calls[:] = [0]
        with record_attention(pipe) as maps:
            with pytest.raises(RuntimeError, match="lost"):
                tiny.run(pipe)
            tiny.run(pipe)  # in the same block, after a run without a step
        assert len(maps) == 3 and len(maps.layers) == 4
    finally:
        hook.remove()


def test_half_precision_is_recorded_too():
    pipe = tiny.pipeline()
    for name in ("unet", "vae", "text_encoder"):
        setattr(pipe, name, copy.deepcopy(getattr(pipe, name)).to(torch.bfloat16))
    bare = tiny.run(pipe)
    maps, pictures = recorded(pipe)
    assert np.array_equal(pictures, bare)
    np.testing.assert_allclose(maps.at(0, 0).sum(0), 1, atol=FLOAT16)


def test_a_layer_still_sees_the_keywords_of_its_own_processor():
    """diffusers asks a processor's signature which keywords to hand on; a wrapper that hides it would change the picture."""

    class Scaled(AttnProcessor2_0):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, louder=1.0):
            return louder * super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)

    pipe = tiny.pipeline()
    with processors_replaced(pipe.unet, lambda name, own: Scaled()):
        plain = tiny.run(pipe)
        loud = tiny.run(pipe, cross_attention_kwargs={"louder": 3.0})
        maps, pictures = recorded(pipe, cross_attention_kwargs={"louder": 3.0})
    assert np.array_equal(pictures, loud) and not np.array_equal(loud, plain) and len(maps) == 3


# --- the numbers


def by_hand(attn, hidden, states):
    """softmax(Q K^T / sqrt(d)) for one picture, head by head: (head, place, token)."""
    queries, keys = hidden @ attn.to_q.weight.T, states @ attn.to_k.weight.T
    width = queries.shape[1] // attn.heads
    heads = []
    for n in range(attn.heads):
        q, k = queries[:, n * width : (n + 1) * width], keys[:, n * width : (n + 1) * width]
        scores = torch.exp(q @ k.T / math.sqrt(width))
        heads.append(scores / scores.sum(1, keepdim=True))
    return torch.stack(heads)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_maps_are_the_formula_written_out(family):
    pipe = tiny.pipeline(family)
    seen = {}

    def keep(module, args, kwargs):
        seen.setdefault(module, []).append((args[0] if args else kwargs["hidden_states"], kwargs["encoder_hidden_states"]))  # fmt: skip

    with record_attention(pipe) as maps:
        modules = [pipe.unet.get_submodule(layer.name) for layer in maps.layers or ()]
        assert modules == []  # they are known once the run has begun
        every = [m for name, m in pipe.unet.named_modules() if name.endswith("attn2")]
        hooks = [m.register_forward_pre_hook(keep, with_kwargs=True) for m in every]
        tiny.run(pipe, guidance_scale=4.0)
        for hook in hooks:
            hook.remove()
    for step in range(len(maps)):
        for i, layer in enumerate(maps.layers):
            module = pipe.unet.get_submodule(layer.name)
            hidden, states = seen[module][step]
            assert len(hidden) == 2  # without the prompt, with it
            expected = by_hand(module, hidden[1], states[1]).mean(0)  # (place, token)
            columns = torch.stack([expected[:, t.first : t.stop].sum(1) for t in maps.tokens])
            map_ = maps.at(step, i)
            assert map_.shape[1:] == (layer.height, layer.width)
            np.testing.assert_allclose(map_.reshape(len(map_), -1), columns.detach().numpy(), atol=FLOAT16)


def test_probabilities_are_those_of_diffusers():
    attn = tiny.pipeline().unet.mid_block.attentions[0].transformer_blocks[0].attn2
    rng = torch.Generator().manual_seed(0)
    hidden, states = torch.randn(2, 12, 32, generator=rng), torch.randn(2, 77, 32, generator=rng)
    mask = torch.zeros(2, 1, 77)
    mask[:, :, 50:] = -10_000
    for given in (None, mask):
        ours = probabilities(attn, hidden, states, given)
        query, key = (attn.head_to_batch_dim(layer(x)) for layer, x in ((attn.to_q, hidden), (attn.to_k, states)))
        theirs = attn.get_attention_scores(query, key, attn.prepare_attention_mask(given, 77, 2))
        torch.testing.assert_close(ours.flatten(0, 1), theirs)
        torch.testing.assert_close(ours.sum(-1), torch.ones(2, attn.heads, 12))
    assert probabilities(attn, hidden, states, mask)[..., 50:].max() == 0


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_over_the_tokens_the_shares_sum_to_one(family):
    maps, _ = recorded(tiny.pipeline(family), guidance_scale=4.0)
    for step in range(len(maps)):
        for layer in range(len(maps.layers)):
            assert maps.at(step, layer).min() >= 0
            np.testing.assert_allclose(maps.at(step, layer).sum(0), 1, atol=FLOAT16)
    np.testing.assert_allclose(maps.mean_attention().sum(1), 1, atol=FLOAT16)
    every = sum(maps.heat_map(i) for i in range(len(maps.tokens)))
    np.testing.assert_allclose(every, 1, atol=FLOAT16)


def test_it_is_the_half_with_the_prompt():
    """At the first step the latents are the same with and without guidance, so the prompt's maps are."""
    pipe = tiny.pipeline()
    guided, _ = recorded(pipe, guidance_scale=4.0, negative_prompt="green")
    alone, _ = recorded(pipe, guidance_scale=1.0)
    negative, _ = recorded(pipe, guidance_scale=1.0, prompt="green")
    layers = range(len(guided.layers))
    for layer in layers:
        np.testing.assert_allclose(guided.at(0, layer), alone.at(0, layer), atol=FLOAT16)
    assert [t.kind for t in negative.tokens] != [t.kind for t in guided.tokens]


def test_of_a_batch_it_is_the_first_picture():
    pipe = tiny.pipeline()
    both, _ = recorded(
        pipe, prompt=["a red cat", "green"], generator=[tiny.generator(0), tiny.generator(1)], guidance_scale=4.0
    )
    alone, _ = recorded(pipe, prompt="a red cat", guidance_scale=4.0)
    assert both.words == ("a", "red", "cat") == alone.words
    for layer in range(len(both.layers)):
        np.testing.assert_allclose(both.at(2, layer), alone.at(2, layer), atol=FLOAT16)


def test_a_loop_by_hand_is_recorded_too():
    """Two calls a step, without and with the prompt: only the second one is about the prompt."""
    pipe = tiny.pipeline()
    pipe.scheduler.set_timesteps(3)
    with torch.no_grad(), record_attention(pipe) as maps:
        cond, uncond = pipe.encode_prompt("a red cat", "cpu", 1, True)
        latents = torch.randn(1, 4, 8, 6, generator=tiny.generator())
        for t in pipe.scheduler.timesteps:
            for states in (uncond, cond):
                noise = pipe.unet(latents, t, encoder_hidden_states=states).sample
            latents = pipe.scheduler.step(noise, t, latents).prev_sample
    assert maps.words == ("a", "red", "cat")
    np.testing.assert_array_equal(maps.timesteps, pipe.scheduler.timesteps.numpy())


def test_embeddings_made_before_the_block_are_taken_for_the_second_half():
    pipe = tiny.pipeline()
    cond, uncond = pipe.encode_prompt("a red cat", "cpu", 1, True)
    latents = torch.randn(1, 4, 8, 6, generator=tiny.generator())
    with torch.no_grad(), record_attention(pipe) as both:
        pipe.unet(latents.repeat(2, 1, 1, 1), 10, encoder_hidden_states=torch.cat([uncond, cond]))
    with torch.no_grad(), record_attention(pipe) as alone:
        pipe.unet(latents, 10, encoder_hidden_states=cond)
    assert both.prompt is None and len(both.tokens) == 77
    np.testing.assert_allclose(both.at(0, 0), alone.at(0, 0), atol=FLOAT16)
    with torch.no_grad(), record_attention(pipe) as without:
        pipe.unet(latents, 10, encoder_hidden_states=uncond)
    assert not np.allclose(both.at(0, 0), without.at(0, 0), atol=1e-4)


def test_a_mask_over_tokens_counts():
    pipe = tiny.pipeline()
    mask = torch.ones(1, 77)
    mask[:, 10:] = 0
    with torch.no_grad(), record_attention(pipe) as maps:
        cond, _ = pipe.encode_prompt("a red cat", "cpu", 1, False)
        latents = torch.randn(1, 4, 8, 6, generator=tiny.generator())
        pipe.unet(latents, 10, encoder_hidden_states=cond, encoder_attention_mask=mask)
    assert maps.tokens[-1].kind == "padding" and maps.tokens[-1].first == 9
    inside = maps.at(0, 0)[-1]  # of 68 places of padding one is left
    assert 0 < inside.max() < 0.2
    np.testing.assert_allclose(maps.at(0, 0).sum(0), 1, atol=FLOAT16)


# --- with others


@pytest.mark.parametrize("outside", ["record", "record_attention"])
def test_it_works_with_record_either_way_round(outside):
    pipe = tiny.pipeline()
    bare = tiny.run(pipe)
    if outside == "record":
        with sdwidgets.record(pipe) as trace, record_attention(pipe) as maps:
            pictures = tiny.run(pipe)
    else:
        with record_attention(pipe) as maps, sdwidgets.record(pipe) as trace:
            pictures = tiny.run(pipe)
    assert np.array_equal(pictures, bare)
    assert trace.complete and trace.settings.prompt == tiny.PROMPT == maps.prompt
    np.testing.assert_array_equal(maps.timesteps, trace.timesteps.astype("f4"))
    assert "step" not in vars(pipe.scheduler) and "encode_prompt" not in vars(pipe)


def test_schedulers_with_two_looks_a_step_have_a_map_for_each():
    pipe = tiny.pipeline(scheduler=tiny.sd_scheduler("HeunDiscreteScheduler"))
    with sdwidgets.record(pipe) as trace, record_attention(pipe) as maps:
        tiny.run(pipe, steps=3)
    assert len(maps) == len(trace) == 5


def test_a_later_run_in_the_block_takes_the_place_of_the_earlier():
    pipe = tiny.pipeline()
    with record_attention(pipe) as maps:
        tiny.run(pipe, prompt="a red cat", steps=4)
        tiny.run(pipe, prompt="two green dogs", steps=2)
    assert len(maps) == 2 and maps.words == ("two", "green", "dogs")


def test_image_to_image_and_perturbed_attention():
    pipe = tiny.pipeline(cls=diffusers.StableDiffusionImg2ImgPipeline)
    image = np.random.default_rng(0).random((1, 64, 48, 3)).astype("f4")
    with record_attention(pipe) as maps:
        pipe("a red cat", image=image, strength=0.5, num_inference_steps=4, generator=tiny.generator())
    assert len(maps) == 2 and maps.words == ("a", "red", "cat")
    pipe = tiny.pipeline(cls=diffusers.StableDiffusionPAGPipeline, pag_applied_layers="mid")
    bare = tiny.run(pipe, guidance_scale=4.0, pag_scale=2.0)
    maps, pictures = recorded(pipe, guidance_scale=4.0, pag_scale=2.0)
    alone, _ = recorded(tiny.pipeline(), guidance_scale=1.0)
    assert np.array_equal(pictures, bare)
    np.testing.assert_allclose(maps.at(0, 0), alone.at(0, 0), atol=FLOAT16)  # of three rows it is the second


def test_an_ip_adapter_keeps_its_pictures_and_the_maps_are_of_the_text():
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    pipe = tiny.pipeline()
    pipe.unet = unet = copy.deepcopy(pipe.unet)
    rng = torch.random.fork_rng(devices=[])
    with rng:
        torch.manual_seed(0)
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(16, 32, 4)])
        unet.register_to_config(encoder_hid_dim_type="ip_image_proj")

        def make(name, own):
            if name.endswith("attn1"):
                return own
            width = unet.get_submodule(name).to_q.in_features
            return IPAdapterAttnProcessor2_0(width, cross_attention_dim=32, num_tokens=(4,))

        unet.set_attn_processor(
            {f"{n}.processor": make(n, p) for n, p in ((k.removesuffix(".processor"), p) for k, p in unet.attn_processors.items())}
        )  # fmt: skip
    cond, _ = pipe.encode_prompt("a red cat", "cpu", 1, False)
    latents = torch.randn(1, 4, 8, 6, generator=tiny.generator())
    given = {"encoder_hidden_states": cond, "added_cond_kwargs": {"image_embeds": [torch.ones(1, 1, 16)]}}
    with torch.no_grad():
        bare = unet(latents, 10, **given).sample
        with record_attention(pipe) as maps:
            pipe.encode_prompt("a red cat", "cpu", 1, False)
            seen = unet(latents, 10, **given).sample
    assert torch.equal(bare, seen) and len(maps) == 1
    np.testing.assert_allclose(maps.at(0, 0).sum(0), 1, atol=FLOAT16)
    assert any("to_k_ip" in name for name, _ in unet.named_parameters())  # its processors are modules, and are back


# --- tokens


def test_columns_are_the_start_the_letters_the_end_and_one_padding():
    columns, cut = read_tokens(tiny.pipeline(), "a red cat")  # this tokenizer has a token for every letter
    assert [t.text for t in columns] == ["start", *"aredcat", "end", "padding"] and cut == ()
    assert [t.word for t in columns] == [-1, 0, 1, 1, 1, 2, 2, 2, -1, -1]
    assert [(t.first, t.stop) for t in columns[:3]] == [(0, 1), (1, 2), (2, 3)]
    assert (columns[-2].first, columns[-2].stop, columns[-1].first, columns[-1].stop) == (8, 9, 9, 77)
    empty, _ = read_tokens(tiny.pipeline(), "")
    assert [t.kind for t in empty] == ["start", "end", "padding"]


def test_what_is_cut_is_told_and_the_word_that_is_torn():
    pipe = tiny.pipeline()
    maps, _ = recorded(pipe, prompt=LONG)
    letters = LONG.replace(" ", "")
    assert "".join(t.text for t in maps.tokens[1:-1]) == letters[:75]
    assert "".join(maps.truncated) == letters[75:]
    assert [t.kind for t in maps.tokens] == ["start", *["text"] * 75, "end"]  # no padding is left
    assert maps.truncated_word == maps.words[-1] and LONG.split()[len(maps.words) - 1].startswith(maps.truncated_word)
    between, _ = recorded(pipe, prompt=LONG.replace("green", "red"))
    assert between.truncated and between.truncated_word is None
    np.testing.assert_allclose(maps.at(0, 0).sum(0), 1, atol=FLOAT16)


def test_another_kind_of_tokenizer_has_numbered_columns():
    pipe = tiny.pipeline(tokenizer=tiny.t5_tokenizer())
    assert read_tokens(pipe, "a red cat") == ((), ())
    pipe.tokenizer.model_max_length = 77
    try:
        maps, _ = recorded(pipe, prompt="a red cat")
    finally:
        pipe.tokenizer.model_max_length = 512
    assert maps.prompt == "a red cat" and len(maps.tokens) == 77 and maps.tokens[5].text == "5"
    np.testing.assert_allclose(maps.at(0, 0).sum(0), 1, atol=FLOAT16)


def test_one_character_of_many_tokens_is_one_character():
    columns, _ = read_tokens(tiny.pipeline(), "a 🚀 b")
    texts = [t.text for t in columns if t.kind == "text"]
    assert texts == ["a", "🚀", "b"] and [t.stop - t.first for t in columns if t.kind == "text"] == [
        1,
        len("🚀".encode()),
        1,
    ]


def test_playground_and_xray_read_a_prompt_alike():
    """One reading of tokens: a letter of several tokens is one piece of its word in both, and its map is the sum of its tokens'."""
    pipe = tiny.pipeline()
    columns = [t for t in read_tokens(pipe, "naïve art")[0] if t.kind == "text"]
    shown = driver.tokens(pipe, "naïve art")["tokens"]
    assert [[t.text, t.stop - t.first] for t in columns] == shown and [t.text for t in columns] == [*"naïveart"]
    assert [t.word for t in columns] == [0] * 5 + [1] * 3 and shown[2] == ["ï", 2]
    maps, _ = recorded(pipe, prompt="naïve art")
    assert maps.words == ("naïve", "art") and maps.find("naïve") == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(maps.heat_map("naïve"), sum(maps.heat_map(i) for i in range(1, 6)), atol=FLOAT16)
    np.testing.assert_allclose(maps.heat_map([1, 2]), maps.heat_map(1) + maps.heat_map(2), atol=FLOAT16)


def test_two_encoders_that_read_different_prompts():
    pipe = tiny.pipeline("sdxl")
    maps, _ = recorded(pipe, prompt="red", prompt_2="rat king")
    assert [t.text for t in maps.tokens if t.kind == "text"] == ["r", "a / e", "t / d", "k", "i", "n", "g"]
    same, _ = recorded(pipe, prompt="red")
    assert [t.text for t in same.tokens if t.kind == "text"] == ["r", "e", "d"]


def test_embeddings_alone_have_numbered_columns():
    pipe = tiny.pipeline()
    embeds, _ = pipe.encode_prompt("a red cat", "cpu", 1, False)
    maps, _ = recorded(pipe, prompt=None, prompt_embeds=embeds, guidance_scale=1.0)
    known, _ = recorded(pipe, prompt="a red cat", guidance_scale=1.0)
    assert maps.prompt is None and [t.text for t in maps.tokens] == [str(i) for i in range(77)]
    np.testing.assert_allclose(maps.heat_map(1), known.heat_map(1), atol=FLOAT16)


def test_words_are_found_wherever_they_stand():
    maps, _ = recorded(tiny.pipeline(), prompt="a Red cat and a red dog")
    assert maps.words == ("a", "red", "cat", "and", "a", "red", "dog")
    assert maps.find("red") == [2, 3, 4, 12, 13, 14] == maps.find("RED")
    assert maps.find("red dog") == [12, 13, 14, 15, 16, 17]
    assert maps.find("<start>") == [0] and maps.find("<padding>") == [len(maps.tokens) - 1] == maps.find(-1)
    for wrong in ("horse", "", "<text>", "re", 99):
        with pytest.raises(ValueError, match="read|column"):
            maps.find(wrong)
    with pytest.raises(ValueError, match="a red cat and a red dog.*<start>, <end>, <padding>"):
        maps.find("horse")


# --- sums


def test_heat_is_the_mean_over_layers_and_steps():
    maps, _ = recorded(tiny.pipeline())
    columns = maps.find("blue")
    up = [i for i, layer in enumerate(maps.layers) if layer.block == "up 1"]
    assert maps.blocks == ("down 0", "mid", "up 1") and len(up) == 2
    by_hand = np.mean([maps.at(s, i)[columns].sum(0) for s in range(3) for i in up], 0)
    np.testing.assert_allclose(maps.heat_map("blue", layers="up 1"), by_hand, atol=1e-6)
    np.testing.assert_allclose(maps.heat_map("blue", layers=up), by_hand, atol=1e-6)
    one = maps.at(1, up[0])[columns].sum(0)
    np.testing.assert_allclose(maps.heat_map("blue", steps=1, layers=[up[0]]), one, atol=1e-6)
    some = maps.heat_map("blue", steps=slice(1, None), layers=up)
    np.testing.assert_allclose(
        some, np.mean([maps.at(s, i)[columns].sum(0) for s in (1, 2) for i in up], 0), atol=1e-6
    )
    assert maps.heat_map("blue").shape == (8, 6) and maps.heat_map("blue", size=(64, 48)).shape == (64, 48)
    assert maps.heat_map("blue", layers="mid").shape == (4, 3)


def test_what_is_not_there_is_said():
    maps, _ = recorded(tiny.pipeline())
    with pytest.raises(ValueError, match="down 0, mid, up 1"):
        maps.heat_map("blue", layers="up 7")
    with pytest.raises(ValueError, match="from 0 to 2"):
        maps.heat_map("blue", steps=[])
    with pytest.raises(ValueError, match="no layer"):
        maps.heat_map("blue", layers=[])
    with record_attention(tiny.pipeline()) as empty:
        pass
    assert len(empty) == 0
    for ask in (lambda: empty.heat_map("blue"), lambda: empty.at(0, 0), empty.mean_attention):
        with pytest.raises(ValueError, match="run the pipeline inside the block"):
            ask()


def test_memory_is_bounded_and_what_was_kept_is_said():
    pipe = tiny.pipeline()
    full, _ = recorded(pipe)
    assert "float16" in full.kept and "averaged to" not in full.kept
    numbers = sum(step[name].numel() for step in full._steps for name in step)
    with record_attention(pipe, max_megabytes=numbers * 2 / 1e6 / 3) as small:
        tiny.run(pipe)
    kept = sum(step[name].numel() for step in small._steps for name in step)
    assert kept <= numbers / 3 and all(m.dtype == torch.float16 for m in small._steps[0].values())
    assert "8 places a side were averaged to 4" in small.kept
    np.testing.assert_allclose(small.at(2, 0).sum(0), 1, atol=FLOAT16)
    blocks = full.at(2, 0).reshape(-1, 4, 2, 3, 2).mean((2, 4))
    np.testing.assert_allclose(small.at(2, 0), blocks, atol=FLOAT16)


# --- what cannot be watched


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_joint_attention_is_named(family):
    pipe = tiny.pipeline(family)
    with pytest.raises(TypeError, match=rf"{type(pipe).__name__} has none.*joint attention.*load\(\"pocket\"\)"), record_attention(pipe):  # fmt: skip
        pass


def test_other_things_are_named():
    for thing in (object(), tiny.pipeline().unet):
        with pytest.raises(TypeError, match="UNet2DConditionModel"), record_attention(thing):
            pass
    pipe = tiny.pipeline()
    pipe.unet = diffusers.UNet2DModel(sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                                      down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    with pytest.raises(TypeError, match="UNet2DModel"), record_attention(pipe):
        pass


def test_a_compiled_network_is_named():
    pipe = tiny.pipeline()
    pipe.unet = torch.compile(pipe.unet)  # nothing is compiled before the first call
    with pytest.raises(RuntimeError, match=r"without torch\.compile"), record_attention(pipe):
        pass
    pipe = tiny.pipeline()
    pipe.unet = copy.deepcopy(pipe.unet)
    pipe.unet.mid_block.compile()
    with pytest.raises(RuntimeError, match=r"without torch\.compile"), record_attention(pipe):
        pass


def test_a_pipeline_made_fast_says_what_to_do():
    pytest.importorskip("openvino")
    from sdwidgets.acceleration import restore, speed_up

    pipe = tiny.pipeline()
    pipe.unet, pipe.vae = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.vae)
    pipe.text_encoder = copy.deepcopy(pipe.text_encoder)
    speed_up(pipe)
    with pytest.raises(RuntimeError, match=r"restore\(pipe\)"), record_attention(pipe):
        pass
    restore(pipe)
    assert len(recorded(pipe)[0]) == 3
