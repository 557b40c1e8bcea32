"""Recording leaves the picture and the pipeline as they were, and tells the truth about the run."""

from __future__ import annotations

import copy
import functools
import inspect
import threading

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image

from sdwidgets.analysis.denoiser import conditioning
from sdwidgets.latents import decode, predicted_original
from sdwidgets.recording import StopRun, record
from sdwidgets.trace import Trace
from tests import tiny

KARRAS = {"use_karras_sigmas": True}
# label -> class, configuration, arguments of the call
SCHEDULERS = {
    "DDIM": ("DDIMScheduler", {}, {}),
    "DDIM, eta 1": ("DDIMScheduler", {}, {"eta": 1.0}),
    "DDIM, zero SNR": (
        "DDIMScheduler",
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        {},
    ),
    "DDIM parallel": ("DDIMParallelScheduler", {}, {}),
    "DDPM": ("DDPMScheduler", {}, {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}, {}),
    "PNDM, Runge-Kutta": ("PNDMScheduler", {"skip_prk_steps": False}, {}),
    "LMS": ("LMSDiscreteScheduler", {}, {}),
    "Euler": ("EulerDiscreteScheduler", {}, {}),
    "Euler, Karras": ("EulerDiscreteScheduler", KARRAS, {}),
    "Euler, trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, {}),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", {}, {}),
    "Heun": ("HeunDiscreteScheduler", {}, {}),
    "Heun, Karras": ("HeunDiscreteScheduler", KARRAS, {}),
    "KDPM2": ("KDPM2DiscreteScheduler", {}, {}),
    "KDPM2 ancestral": ("KDPM2AncestralDiscreteScheduler", {}, {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}, {}),
    "DPM++ 2M, Karras": ("DPMSolverMultistepScheduler", KARRAS, {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}, {}),
    "DPM SDE": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 0}, {}),
    "DEIS": ("DEISMultistepScheduler", {}, {}),
    "UniPC": ("UniPCMultistepScheduler", {}, {}),
    "SA solver": ("SASolverScheduler", {}, {}),
    "LCM": ("LCMScheduler", {}, {}),
    "TCD": ("TCDScheduler", {}, {"eta": 0.3}),
}
NEEDS = {"LMS": "scipy", "DPM SDE": "torchsde"}
STOCHASTIC = {"DDIM, eta 1", "DDPM", "Euler ancestral", "KDPM2 ancestral", "DPM++ 2M SDE", "SA solver", "LCM", "TCD"}
FLOW = {
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow Euler, stochastic": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "flow Heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    "flow LCM": ("FlowMatchLCMScheduler", {}),
    "flow DPM++": (
        "DPMSolverMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
    "flow UniPC": (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
}
SHORT_T5 = {"max_sequence_length": 16}
FAMILIES = {
    "sd": {"negative_prompt": "a cat"},
    "sdxl": {"negative_prompt": "a cat"},
    "sd3": {"negative_prompt": "a cat", **SHORT_T5},
    "flux": {"negative_prompt": "a cat", "true_cfg_scale": 3.0, **SHORT_T5},
}


def untouched(pipe) -> dict:
    """All that record() may touch, to be compared before and after."""
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    owners = {"pipe": pipe, "scheduler": pipe.scheduler, "vae": pipe.vae, "images": pipe.image_processor}
    wrapped = {"step", "decode", "postprocess", "encode_prompt", "prepare_latents"}
    seen = {name: wrapped & vars(owner).keys() for name, owner in owners.items()}
    return {**seen, "hooks": len(denoiser._forward_hooks), "pre_hooks": len(denoiser._forward_pre_hooks)}


def picture_and_state(pipe, **kwargs) -> tuple[np.ndarray, torch.Tensor]:
    """A run's picture and the state in which it left its generator."""
    generator = tiny.generator(5)
    torch.manual_seed(0)  # for schedulers that draw from the global generator whatever they are given
    size = {} if "image" in kwargs else tiny.SIZE
    kwargs = {"prompt": tiny.PROMPT, "output_type": "np", "num_inference_steps": 4, **size, **kwargs}
    return pipe(generator=generator, **kwargs).images, generator.get_state()


def assert_same_picture(decoded: np.ndarray, images: np.ndarray):
    """To one level of 255 in one value of a thousand: to the VAE's scale and back rounds the last bit of a float32."""
    difference = np.abs(decoded.astype(int) - images)
    assert difference.max() <= 1 and difference.mean() < 1e-3


def assert_recording_changes_nothing(pipe, **kwargs):
    """Runs bare and recorded; returns the trace."""
    before = untouched(pipe)
    bare, state = picture_and_state(pipe, **kwargs)
    with record(pipe) as trace:
        recorded, recorded_state = picture_and_state(pipe, **kwargs)
    np.testing.assert_array_equal(bare, recorded)
    assert torch.equal(state, recorded_state)
    assert untouched(pipe) == before
    np.testing.assert_array_equal(trace.images, (bare * 255).round().astype(np.uint8))
    assert trace.complete and len(trace) == getattr(pipe, "num_timesteps", len(pipe.scheduler.timesteps))
    assert np.isfinite(trace.latents).all() and np.isfinite(trace.pred_original).all()
    assert (trace.seconds > 0).all()
    return trace


@pytest.mark.parametrize("label", SCHEDULERS)
def test_same_picture_under_every_scheduler(label):
    if label in NEEDS:
        pytest.importorskip(NEEDS[label])
    name, config, kwargs = SCHEDULERS[label]
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler(name, **config))
    trace = assert_recording_changes_nothing(pipe, **kwargs)
    assert trace.settings.scheduler == name and trace.settings.num_inference_steps == 4
    assert trace.settings.seed == 5
    assert (np.diff(trace.timesteps) <= 1e-3).all() and trace[0].timestep > trace[-1].timestep
    if label in STOCHASTIC:  # that it really drew from the generator it was given
        fresh = tiny.generator(5)
        torch.randn(trace[0].latents.shape, generator=fresh)
        assert not torch.equal(picture_and_state(pipe, **kwargs)[1], fresh.get_state())


@pytest.mark.parametrize("label", FLOW)
def test_same_picture_under_flow_schedulers(label):
    name, config = FLOW[label]
    pipe = tiny.pipeline("sd3", scheduler=getattr(diffusers, name)(**config))
    trace = assert_recording_changes_nothing(pipe, **FAMILIES["sd3"])
    assert {step.process for step in trace} == {"flow"}
    np.testing.assert_allclose(trace.sigmas, trace.timesteps / 1000, atol=1e-3)
    np.testing.assert_allclose(trace.alphas, 1 - trace.sigmas)
    snr = 10 ** (trace.snr_db / 10)  # a ratio of powers, of which the share is the other form
    np.testing.assert_allclose(trace.picture_share, snr / (1 + snr), atol=1e-6)
    sigmas = trace.sigmas[:, None, None, None, None]
    np.testing.assert_allclose(trace.pred_original, trace.latents - sigmas * trace.noise_pred, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_its_two_halves(family):
    pipe = tiny.pipeline(family)
    trace = assert_recording_changes_nothing(pipe, **FAMILIES[family])
    scale = 3.0 if family == "flux" else trace.settings.guidance_scale
    channels = pipe.vae.config.latent_channels
    for step in trace:
        guided = step.noise_pred_uncond + scale * (step.noise_pred_cond - step.noise_pred_uncond)
        np.testing.assert_allclose(step.noise_pred, guided, atol=1e-5)
        assert np.abs(step.noise_pred_cond - step.noise_pred_uncond).max() > 0
        assert step.latents.shape == step.pred_original.shape == (1, channels, 8, 6)
        assert step.latents.dtype == step.pred_original.dtype == np.float32
    s = trace.settings
    assert (s.prompt, s.negative_prompt, s.seed) == (tiny.PROMPT, "a cat", 5)
    assert (s.height, s.width) == (64, 48) and s.pipeline == type(pipe).__name__
    assert (s.device, s.dtype) == ("cpu", "float32") and s.versions["torch"] == torch.__version__
    assert_same_picture(decode(pipe, trace.final_latents), trace.images)


def test_flux_latents_are_unpacked_as_the_pipeline_unpacks_them():
    pipe = tiny.pipeline("flux")
    trace = assert_recording_changes_nothing(pipe, **SHORT_T5)
    packed = picture_and_state(pipe, output_type="latent", **SHORT_T5)[0]
    unpacked = pipe._unpack_latents(packed, 64, 48, pipe.vae_scale_factor)
    np.testing.assert_allclose(trace.final_latents, unpacked.numpy(), atol=1e-5)
    last, dt = trace[-1], 0.0 - trace[-1].sigma  # one Euler step by hand leads from the last x_t to the end
    np.testing.assert_allclose(last.latents + dt * last.noise_pred, trace.final_latents, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_halves_where_none_are_computed(family):
    off = SHORT_T5 if family == "flux" else {"guidance_scale": 1.0, **(SHORT_T5 if family == "sd3" else {})}
    trace = assert_recording_changes_nothing(tiny.pipeline(family), **off)
    assert all(step.noise_pred_uncond is None and step.noise_pred_cond is None for step in trace)


def test_halves_only_while_guidance_lasts():
    def stop_guidance(pipe, i, t, kwargs):
        if i == 1:
            pipe._guidance_scale = 1.0
            kwargs["prompt_embeds"] = kwargs["prompt_embeds"].chunk(2)[1]
        return kwargs

    pipe = tiny.pipeline("sd")
    kwargs = {"callback_on_step_end": stop_guidance, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    trace = assert_recording_changes_nothing(pipe, **kwargs)
    assert [step.noise_pred_cond is not None for step in trace] == [True, True, False, False]


# --- predicted x0


RETURN_OR_KEEP_X0 = (
    "DDIM, DDPM, Euler, Euler ancestral, Heun, KDPM2, KDPM2 ancestral, LMS, DPM SDE, DPM++ 2M, DPM++ 2S, UniPC"
).split(", ")
NOT_FOR_SAMPLE = {"Euler ancestral", "KDPM2", "KDPM2 ancestral", "DPM SDE"}  # diffusers has not written that


@pytest.mark.parametrize(
    ("label", "prediction_type"),
    [("Euler, Karras", "epsilon"), ("Heun, Karras", "epsilon"), ("DPM++ 2M, Karras", "epsilon")]
    + [(label, kind) for label in RETURN_OR_KEEP_X0 for kind in ("epsilon", "v_prediction")]
    + [(label, "sample") for label in RETURN_OR_KEEP_X0 if label not in NOT_FOR_SAMPLE],
)
def test_predicted_x0_is_the_schedulers_own(label, prediction_type):
    """Against the x0 that the scheduler itself returns, or keeps as its history where it does not."""
    if label in NEEDS:
        pytest.importorskip(NEEDS[label])
    name, config, kwargs = SCHEDULERS[label]
    scheduler = tiny.sd_scheduler(name, **{**config, "prediction_type": prediction_type})
    pipe = tiny.pipeline("sd", scheduler=scheduler)
    step, own = scheduler.step, []

    @functools.wraps(step)
    def keep_x0(*args, **kwargs):
        result = step(*args, **{**kwargs, "return_dict": True})
        x0 = getattr(result, "pred_original_sample", None)
        own.append((scheduler.model_outputs[-1] if x0 is None else x0).clone())
        return (result.prev_sample,)

    scheduler.step = keep_x0
    with record(pipe) as trace:
        picture_and_state(pipe, **kwargs)
    assert trace.settings.prediction_type == prediction_type
    for theirs, ours in zip(own, trace.pred_original, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label", ["PNDM", "PNDM, Runge-Kutta", "LCM", "TCD", "SA solver", "DEIS"])
def test_predicted_x0_from_the_schedulers_noise_levels(label):
    """Those that return no x0: against the formula with abar at the step's own timestep."""
    name, config, kwargs = SCHEDULERS[label]
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler(name, **config))
    with record(pipe) as trace:
        picture_and_state(pipe, **kwargs)
    for step in trace:
        abar = pipe.scheduler.alphas_cumprod[int(step.timestep)].item()
        x0 = (step.latents - (1 - abar) ** 0.5 * step.noise_pred) / abar**0.5
        np.testing.assert_allclose(step.pred_original, x0, rtol=1e-3, atol=1e-3)
        assert step.alpha == pytest.approx(abar**0.5, rel=1e-3) and step.process == "vp"
        assert step.picture_share == pytest.approx(abar, rel=1e-3)


def test_zero_terminal_snr_is_finite():
    name, config, _ = SCHEDULERS["DDIM, zero SNR"]
    with record(pipe := tiny.pipeline("sd", scheduler=tiny.sd_scheduler(name, **config))) as trace:
        picture_and_state(pipe)
    assert trace[0].alpha == 0 and np.isinf(trace[0].sigma) and trace[0].snr_db == -np.inf
    np.testing.assert_allclose(trace[0].pred_original, -trace[0].noise_pred)  # v is minus the picture here


def test_variance_exploding_samples_are_scaled_for_pictures():
    with record(pipe := tiny.pipeline("sd", scheduler=tiny.sd_scheduler("EulerDiscreteScheduler"))) as trace:
        picture_and_state(pipe)
    first = trace[0]
    assert first.process == "ve" and first.sigma > 10 and first.latents.std() > 10
    assert first.scaled_latents.std() == pytest.approx(1, abs=0.2)
    np.testing.assert_allclose(first.scaled_latents, first.latents / (1 + first.sigma**2) ** 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("label", "steps"),
    [
        ("DDIM", [0, 1, 2, 3]),
        ("Heun", [0, 0, 1, 1, 2, 2, 3]),
        ("KDPM2", [0, 0, 1, 1, 2, 2, 3]),
        ("PNDM", [0, 0, 1, 2, 3]),
        ("PNDM, Runge-Kutta", [0] * 4 + [1] * 4 + [2] * 4 + [3]),
    ],
)
def test_calls_are_mapped_to_steps(label, steps):
    name, config, _ = SCHEDULERS[label]
    with record(pipe := tiny.pipeline("sd", scheduler=tiny.sd_scheduler(name, **config))) as trace:
        picture_and_state(pipe)
    assert [step.pipeline_step for step in trace] == steps and len(steps) == pipe.num_timesteps


# --- other pipelines over the same parts


def picture(height: int = 64, width: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def mask(height: int = 64, width: int = 48) -> Image.Image:
    return Image.fromarray(np.uint8(255) * (np.arange(width) < width // 2)[None].repeat(height, 0))


@pytest.mark.parametrize("label", ["DDIM", "Euler ancestral", "Heun", "DPM++ 2M", "UniPC", "PNDM", "LCM"])
@pytest.mark.parametrize("kind", ["Img2Img", "Inpaint"])
def test_from_a_picture(kind, label):
    name, config, kwargs = SCHEDULERS[label]
    cls = getattr(diffusers, f"StableDiffusion{kind}Pipeline")
    pipe = tiny.pipeline("sd", cls, tiny.sd_scheduler(name, **config))
    masked = {"mask_image": mask(), **tiny.SIZE} if kind == "Inpaint" else {}
    trace = assert_recording_changes_nothing(pipe, image=picture(), strength=0.75, **masked, **kwargs)
    assert (trace.settings.height, trace.settings.width) == (64, 48)
    assert trace.settings.num_inference_steps == 4 and len(trace) < 4 * 4
    assert_same_picture(decode(pipe, trace.final_latents), trace.images)


def test_inpainting_blends_after_the_step():
    pipe = tiny.pipeline("sd", diffusers.StableDiffusionInpaintPipeline)
    with record(pipe) as trace:
        picture_and_state(pipe, image=picture(), mask_image=mask(), **tiny.SIZE)
    last = trace[-1]  # DDIM's last step here goes to abar[0], which is nearly the picture
    abar = pipe.scheduler.final_alpha_cumprod.item()
    noise = (last.latents - last.alpha * last.pred_original) / (1 - last.alpha**2) ** 0.5
    stepped = abar**0.5 * last.pred_original + (1 - abar) ** 0.5 * noise
    difference = np.abs(stepped - trace.final_latents)[0].max((0, 1))  # by column; the mask covers the left half
    assert difference[:3].max() < 1e-4 < 1e-2 < difference[3:].max()


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("sdxl", "StableDiffusionXLImg2ImgPipeline"),
        ("sdxl", "StableDiffusionXLInpaintPipeline"),
        ("sd3", "StableDiffusion3Img2ImgPipeline"),
        ("flux", "FluxImg2ImgPipeline"),
        ("flux", "FluxInpaintPipeline"),
    ],
)
def test_from_a_picture_in_the_other_families(family, name):
    pipe = tiny.pipeline(family, getattr(diffusers, name))
    kwargs = {"image": picture(), "strength": 0.75, **tiny.SIZE, **(SHORT_T5 if family != "sdxl" else {})}
    if "Inpaint" in name:
        kwargs["mask_image"] = mask()
    if family == "sdxl" and "Inpaint" not in name:
        kwargs = {k: v for k, v in kwargs.items() if k not in tiny.SIZE}
    trace = assert_recording_changes_nothing(pipe, **kwargs)
    assert trace[0].latents.shape[-2:] == (8, 6)
    assert (trace.settings.height, trace.settings.width) == (64, 48)


def test_adapter_pipeline_stops_too():
    """It has no callback_on_step_end, so raising in the step is the only way to stop it."""
    adapter = diffusers.T2IAdapter(3, [16, 32], num_res_blocks=1, downscale_factor=8, adapter_type="full_adapter")
    pipe = tiny.pipeline("sd", diffusers.StableDiffusionAdapterPipeline, adapter=adapter.eval())
    assert_recording_changes_nothing(pipe, image=picture(), **tiny.SIZE)
    with pytest.raises(StopRun), record(pipe, on_step=stop_at(1)) as trace:
        picture_and_state(pipe, image=picture(), **tiny.SIZE)
    assert len(trace) == 2 and not trace.complete


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_every_output_type(family, output_type):
    pipe = tiny.pipeline(family)
    with record(pipe) as trace:
        result, _ = picture_and_state(pipe, output_type=output_type, **(SHORT_T5 if family == "flux" else {}))
    assert trace.complete and len(trace) == 4
    if output_type == "latent":
        assert trace.images is None and trace.final_latents is None
        return
    if output_type == "pt":
        result = result.permute(0, 2, 3, 1).numpy()
    expected = np.asarray(result[0]) if output_type == "pil" else (result[0] * 255).round()
    np.testing.assert_array_equal(trace.images[0], expected)


def test_a_batch():
    pipe = tiny.pipeline("sd")
    prompts, generators = ["a cat", "a dog"], [tiny.generator(i) for i in range(4)]
    with record(pipe) as trace:
        tiny.run(pipe, prompt=prompts, num_images_per_prompt=2, generator=generators)
    assert trace.latents.shape == (3, 4, 4, 8, 6) and trace.images.shape == (4, 64, 48, 3)
    assert trace[0].noise_pred_cond.shape == trace[0].noise_pred.shape
    assert trace.settings.prompt == prompts and trace.settings.seed == [0, 1, 2, 3]


# --- ways out


def stop_at(index: int, error: type[BaseException] = StopRun):
    def on_step(step):
        if step.index == index:
            raise error

    return on_step


@pytest.mark.parametrize("error", [StopRun, KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_stopped_run_keeps_its_steps_and_undoes_itself(family, error):
    class Counting(type(tiny.pipeline(family))):
        freed = 0

        def maybe_free_model_hooks(self):
            self.freed += 1
            return super().maybe_free_model_hooks()

    pipe = tiny.pipeline(family, Counting)
    kwargs = FAMILIES[family]
    before, whole = untouched(pipe), picture_and_state(pipe, **kwargs)[0]
    pipe.freed = 0
    with pytest.raises(error), record(pipe, on_step=stop_at(1, error)) as trace:
        picture_and_state(pipe, **kwargs)
    assert untouched(pipe) == before and pipe.freed == 1
    assert len(trace) == 2 and not trace.complete and trace.images is None
    assert trace.settings.prompt == tiny.PROMPT and trace[1].noise_pred_cond is not None
    np.testing.assert_array_equal(picture_and_state(pipe, **kwargs)[0], whole)


def test_stopped_without_on_step_keeps_its_steps():
    def stop(pipe, i, t, kwargs):
        raise KeyboardInterrupt

    pipe = tiny.pipeline("sd")
    before = untouched(pipe)
    with pytest.raises(KeyboardInterrupt), record(pipe) as trace:
        picture_and_state(pipe, callback_on_step_end=stop)
    assert len(trace) == 1 and not trace.complete and untouched(pipe) == before


def test_stopped_run_caught_inside_the_block():
    pipe = tiny.pipeline("sd")
    with record(pipe, on_step=stop_at(2)) as trace:
        with pytest.raises(StopRun):
            picture_and_state(pipe)
    assert len(trace) == 3 and not trace.complete


def test_previews_decoded_on_the_way_are_not_the_picture():
    pipe = tiny.pipeline("sd")
    bare = picture_and_state(pipe)[0]

    def decode_it(step):
        decode(pipe, step.pred_original)

    def decode_and_stop(step):
        decode_it(step)
        stop_at(1)(step)

    with record(pipe, on_step=decode_it) as trace:
        np.testing.assert_array_equal(picture_and_state(pipe)[0], bare)
    np.testing.assert_array_equal(trace.images, (bare * 255).round())
    with pytest.raises(StopRun), record(pipe, on_step=decode_and_stop) as trace:
        picture_and_state(pipe)
    assert trace.images is None and trace.final_latents is None and len(trace) == 2


def test_safety_checkers_picture_is_the_picture():
    """A stock pipeline hands the picture to its checker through the same image processor, and may black it out."""

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(vision_config={**tower, "image_size": 32, "patch_size": 16}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config).eval()
    checker.concept_embeds_weights.data.fill_(-2)  # thresholds that every picture passes
    extractor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    pipe = tiny.pipeline("sd", safety_checker=checker, feature_extractor=extractor)
    trace = assert_recording_changes_nothing(pipe)
    assert not trace.images.any()


def test_interrupt_flag_of_the_pipeline_is_told():
    def interrupt(pipe, i, t, kwargs):
        pipe._interrupt = i == 1
        return kwargs

    with record(pipe := tiny.pipeline("sd")) as trace:
        picture_and_state(pipe, callback_on_step_end=interrupt)
    assert len(trace) == 2 and not trace.complete and trace.images is not None  # it decodes all the same


def test_bad_input_to_the_pipeline_leaves_it_clean():
    pipe = tiny.pipeline("sd")
    before = untouched(pipe)
    with pytest.raises(ValueError, match="divisible by 8"), record(pipe) as trace:
        picture_and_state(pipe, height=63)
    assert untouched(pipe) == before and len(trace) == 0 and not trace.complete


def test_error_after_the_run_keeps_the_trace_complete():
    pipe = tiny.pipeline("sd")
    with pytest.raises(ZeroDivisionError), record(pipe) as trace:
        picture_and_state(pipe)
        _ = 1 / 0
    assert trace.complete and len(trace) == 4


# --- inside the block


def test_step_keeps_its_signature():
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler("EulerAncestralDiscreteScheduler"))
    outside = inspect.signature(pipe.scheduler.step)
    with record(pipe):
        assert inspect.signature(pipe.scheduler.step) == outside
        assert "generator" in pipe.prepare_extra_step_kwargs(tiny.generator(), 0.0)


def test_on_step_sees_every_step_on_the_pipelines_thread():
    seen = []
    with record(pipe := tiny.pipeline("sd"), on_step=lambda s: seen.append((s, threading.get_ident()))) as trace:
        picture_and_state(pipe)
    assert [step for step, _ in seen] == list(trace.steps)
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_trace_can_be_read_inside_the_block_and_a_later_run_replaces_the_earlier():
    pipe = tiny.pipeline("sd")
    with record(pipe) as trace:
        picture_and_state(pipe, negative_prompt="a cat", num_inference_steps=2)
        assert trace.complete and len(trace) == 2 and trace.settings.negative_prompt == "a cat"
        picture_and_state(pipe, prompt="a dog", num_inference_steps=3)
    assert len(trace) == 3 and trace.settings.prompt == "a dog" and trace.settings.negative_prompt is None
    with record(pipe) as alone:
        picture_and_state(pipe, prompt="a dog", num_inference_steps=3)
    np.testing.assert_array_equal(trace.latents, alone.latents)


def test_run_that_failed_before_its_first_step_leaves_nothing_behind():
    pipe = tiny.pipeline("flux")

    def fail(module, args, kwargs):
        raise torch.cuda.OutOfMemoryError

    with record(pipe) as trace:
        handle = pipe.transformer.register_forward_pre_hook(fail, with_kwargs=True)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            picture_and_state(pipe, **{**FAMILIES["flux"], "prompt": "a horse"})
        handle.remove()
        picture_and_state(pipe, **SHORT_T5)
    assert (trace.settings.prompt, trace.settings.negative_prompt) == (tiny.PROMPT, None)
    assert trace.complete and trace[0].noise_pred_cond is None


def test_nested_blocks_both_record():
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler("EulerAncestralDiscreteScheduler"))
    before, bare = untouched(pipe), picture_and_state(pipe)[0]
    with record(pipe) as outer, record(pipe) as inner:
        nested = picture_and_state(pipe)[0]
    np.testing.assert_array_equal(bare, nested)
    np.testing.assert_array_equal(outer.latents, inner.latents)
    assert outer.complete and inner.complete and untouched(pipe) == before


def test_copies_made_inside_the_block_work_unwatched():
    """Some pipelines copy their scheduler in mid-run: that must not step the original, nor copy the pipeline."""
    pipe = tiny.pipeline("sd", scheduler=tiny.sd_scheduler("EulerDiscreteScheduler"))
    with record(pipe) as trace, record(pipe):
        copied = copy.deepcopy(pipe.scheduler)
        assert copied.step.__self__ is copied and copied.step.__func__ is type(copied).step
        copied.set_timesteps(3)
        sample = torch.ones(1, 4, 8, 6)
        copied.scale_model_input(sample, copied.timesteps[0])
        copied.step(sample, copied.timesteps[0], sample)
        assert copied.step_index == 1 and pipe.scheduler.step_index is None
    assert len(trace) == 0


def test_scheduler_replaced_inside_the_block():
    pipe = tiny.pipeline("sd")
    first = pipe.scheduler
    with pytest.raises(RuntimeError, match="choose it before the block"), record(pipe):
        pipe.scheduler = tiny.sd_scheduler("EulerDiscreteScheduler")
        picture_and_state(pipe)
    assert "step" not in vars(first) and "step" not in vars(pipe.scheduler)


def test_a_step_that_lacks_something_says_what():
    pipe = tiny.pipeline("sd")
    pipe.scheduler.set_timesteps(4)
    with pytest.raises(TypeError, match="sample"), record(pipe):
        pipe.scheduler.step(torch.zeros(1, 4, 8, 8), 1)


def test_latents_that_were_given_have_no_seed():
    pipe = tiny.pipeline("sd")
    noise = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(7))
    with record(pipe) as trace:
        pipe(
            "a cat",
            num_inference_steps=2,
            height=64,
            width=48,
            latents=noise,
            generator=torch.Generator().manual_seed(1),
        )
    assert trace.settings.seed is None and len(trace) == 2


def test_numbers_of_numpy_are_plain_in_the_settings(tmp_path):
    pipe = tiny.pipeline("sd")
    with record(pipe) as trace:
        tiny.run(pipe, steps=np.int64(3), guidance_scale=np.float32(4.0))
    assert type(trace.settings.num_inference_steps) is int and type(trace.settings.guidance_scale) is float
    assert Trace.load(trace.save(tmp_path / "t")).settings == trace.settings


def test_used_generator_has_no_seed():
    pipe, generator = tiny.pipeline("sd"), tiny.generator(7)
    for seed in (7, None):
        with record(pipe) as trace:
            pipe("a cat", generator=generator, num_inference_steps=1, **tiny.SIZE)
        assert trace.settings.seed == seed
    with record(pipe) as trace:
        pipe("a cat", num_inference_steps=1, **tiny.SIZE)
    assert trace.settings.seed is None


@pytest.mark.parametrize("thing", [None, "pocket", tiny.clip_tokenizer()])
def test_no_pipeline(thing):
    with pytest.raises(TypeError, match="needs a diffusers pipeline"), record(thing):
        pass


def test_unknown_kind_of_scheduler():
    pipe = tiny.pipeline("sd", scheduler=diffusers.EDMEulerScheduler())
    before = untouched(pipe)
    with pytest.raises(ValueError, match="EDMEulerScheduler.*choose"), record(pipe):
        pass
    assert untouched(pipe) == before


def test_unknown_prediction_type():
    with pytest.raises(ValueError, match="'epsilon', 'v_prediction', 'sample' and 'flow_prediction'"):
        predicted_original(np.ones(1), np.ones(1), 0.5, 1.7, "noise")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["function", "method"])
def test_a_compiled_denoiser_is_one_graph_while_it_is_watched(how, recwarn):
    """As diffusers advises, `fullgraph=True`: nothing of ours stands in the graph, where it could not be traced."""
    pipe = tiny.pipeline("sd", unet=copy.deepcopy(tiny.pipeline("sd").unet))
    if how == "method":
        pipe.unet.compile(backend="eager", fullgraph=True)
    else:
        pipe.unet = torch.compile(pipe.unet, backend="eager", fullgraph=True)
    kept = vars(pipe.unet).get("_compiled_call_impl")
    try:
        with record(pipe) as trace:
            recorded = tiny.run(pipe, steps=2, guidance_scale=4.0)
        seen = conditioning(pipe, "a cat", guidance_scale=3.0)
        bare = tiny.run(pipe, steps=2, guidance_scale=4.0)
    finally:
        torch._dynamo.reset()
    assert len(trace) == 2 and trace[0].noise_pred_cond is not None and len(seen["encoder_hidden_states"]) == 2
    np.testing.assert_array_equal(bare, recorded)
    assert vars(pipe.unet).get("_compiled_call_impl") is kept and not [
        w for w in recwarn if "Dynamo" in str(w.message)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["function", "method"])
def test_compiled_denoiser(how):
    """After m = torch.compile(m) the hook must sit on what the pipeline calls."""
    pipe = tiny.pipeline("sd")
    unet = copy.deepcopy(pipe.unet)
    if how == "function":
        unet = torch.compile(unet, backend="eager")
    else:
        unet.compile(backend="eager")
    pipe.register_modules(unet=unet)
    try:
        with record(pipe) as trace:
            recorded, _ = picture_and_state(pipe)
        bare, _ = picture_and_state(pipe)
    finally:
        torch._dynamo.reset()
    np.testing.assert_array_equal(bare, recorded)
    assert all(step.noise_pred_cond is not None for step in trace)
    assert not unet._forward_hooks
