"""Whole pipelines go to diffusers and come back, and draw the same pictures there and here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    StableCascadeCombinedPipeline,
    StableCascadeDecoderPipeline,
    StableCascadePriorPipeline,
)
from PIL import Image
from torch import Tensor

import gdf
from inference import Cascade
from modules.conditions import stage_b_inputs, stage_c_inputs
from modules.encoders import ImageEncoder, TextEncoder
from modules.weights import contents, load_network
from modules.weights.conversion import chosen, convert, gather
from modules.weights.writers import Settings
from tests.integration.peer_cases import (
    COMPRESSION,
    RELATIVE,
    TheirSampler,
    diffusion_spec,
    relative_difference,
    same_state,
    save_cascade,
)

PROMPTS, NEGATIVES = ["a red circle", "blue"], ["square", "square"]
STEPS = {"stage_c": 6, "stage_b": 5}
GUIDANCE = {"stage_c": 3.0, "stage_b": 1.5}
SIDE_PX = 32
Note = Callable[[str, Any], None]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of runs, and what is in it."""
    folder = tmp_path_factory.mktemp("cascade")
    return folder, save_cascade(folder, STEPS)


@pytest.fixture(scope="module")
def pipelines(networks: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the pipelines prior, decoder and combined, written by us."""
    folder, parts = tmp_path_factory.mktemp("pipelines"), gather(networks[0])
    for name in ("prior", "decoder"):
        convert(chosen(parts, [name]), folder / name, Settings("diffusers"))
    convert(parts, folder / "combined", Settings("diffusers"))
    return folder


def generators(seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + row) for row in range(len(PROMPTS))]


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_here(stage: str, network: Any, inputs: Any, negative_inputs: Any, shape: Any, rngs: Any) -> Tensor:
    """Sample as diffusers' pipelines do: see `TheirSampler` and `diffusion_spec`; no shift, no rescaling."""
    *_, last = gdf.build(diffusion_spec(STEPS[stage])).sample(
        network,
        inputs,
        shape,
        unconditional_inputs=negative_inputs,
        generators=rngs,
        sampler=TheirSampler(),
        timesteps=STEPS[stage],
        cfg=GUIDANCE[stage],
        cfg_rho=0.0,
    )
    return last.x


@torch.no_grad()
def draw_here(
    folder: Path, c_rngs: list[torch.Generator], b_rngs: list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Compressor latents and pictures of the prompts, with the networks of a folder of pipelines."""
    encoder = TextEncoder(source=str(folder))
    texts, negatives = encoder(PROMPTS), encoder(NEGATIVES)
    stage_c: Any = load_network(folder, "stage_c").eval()
    stage_b: Any = load_network(folder, "stage_b").eval()
    stage_a: Any = load_network(folder, "stage_a").eval()
    c_inputs = stage_c_inputs(texts, None, 12), stage_c_inputs(negatives, None, 12)
    latents = sample_here("stage_c", stage_c, *c_inputs, (2, 16, 3, 3), c_rngs)
    b_inputs = stage_b_inputs(texts, latents), stage_b_inputs(negatives, torch.zeros_like(latents))
    quarter = sample_here("stage_b", stage_b, *b_inputs, (2, 4, 8, 8), b_rngs)
    return latents, stage_a.decode(quarter).clamp(0, 1)


def draw_there(prior: Any, decoder: Any) -> tuple[Tensor, Tensor]:
    """The same through diffusers' pipelines."""
    latents = quiet(prior)(
        PROMPTS,
        negative_prompt=NEGATIVES,
        height=SIDE_PX,
        width=SIDE_PX,
        num_inference_steps=STEPS["stage_c"],
        guidance_scale=GUIDANCE["stage_c"],
        generator=generators(1),
    ).image_embeddings
    pictures = quiet(decoder)(
        latents,
        PROMPTS,
        negative_prompt=NEGATIVES,
        num_inference_steps=STEPS["stage_b"],
        guidance_scale=GUIDANCE["stage_b"],
        generator=generators(7),
        output_type="pt",
    ).images
    return latents, pictures


def test_prior_and_decoder_draw_what_we_draw(
    networks: tuple[Path, dict[str, Any]], pipelines: Path, record_property: Note
) -> None:
    prior = StableCascadePriorPipeline.from_pretrained(pipelines / "prior")
    decoder = StableCascadeDecoderPipeline.from_pretrained(pipelines / "decoder")
    assert prior.config.resolution_multiple == COMPRESSION
    theirs = draw_there(prior, decoder)
    ours = draw_here(pipelines / "combined", generators(1), generators(7))
    for what, here, there in zip(("latents", "pictures"), ours, theirs, strict=True):
        difference = relative_difference(here, there)
        record_property(what, difference)
        assert difference <= RELATIVE
    assert ((theirs[1] > 0) & (theirs[1] < 1)).float().mean() > 0.2  # not all cut off


def test_combined_draws_what_we_draw(pipelines: Path, record_property: Note) -> None:
    combined = quiet(StableCascadeCombinedPipeline.from_pretrained(pipelines / "combined"))
    # The combined pipeline has no settings for sizes: it only knows those of the released models.
    combined.prior_pipe.register_to_config(resolution_multiple=COMPRESSION)
    combined.decoder_pipe.register_to_config(latent_dim_scale=2.67)
    theirs = combined(
        PROMPTS,
        negative_prompt=NEGATIVES,
        height=SIDE_PX,
        width=SIDE_PX,
        prior_num_inference_steps=STEPS["stage_c"],
        num_inference_steps=STEPS["stage_b"],
        prior_guidance_scale=GUIDANCE["stage_c"],
        decoder_guidance_scale=GUIDANCE["stage_b"],
        generator=generators(1),
        output_type="pt",
    ).images
    rngs = generators(1)  # both stages draw from them, one after the other
    _, ours = draw_here(pipelines / "combined", rngs, rngs)
    difference = relative_difference(ours, theirs)
    record_property("pictures", difference)
    assert difference <= RELATIVE


@torch.no_grad()
def test_encoders_give_the_same_there(networks: tuple[Path, dict[str, Any]], pipelines: Path) -> None:
    prior = StableCascadePriorPipeline.from_pretrained(pipelines / "prior")
    texts = networks[1]["text_encoder"](PROMPTS)
    tokens, pooled, *_ = prior.encode_prompt("cpu", 2, 1, False, PROMPTS)
    assert relative_difference(texts.tokens, tokens) <= RELATIVE
    assert relative_difference(texts.pooled, pooled) <= RELATIVE
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).mul(255).round() / 255
    picture = Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy())
    there, _ = prior.encode_image([picture], "cpu", torch.float32, 1, 1)
    here = ImageEncoder(source=str(pipelines / "combined"))(pixels)
    assert relative_difference(here, there) <= RELATIVE


def test_pipeline_of_diffusers_here(pipelines: Path, tmp_path: Path) -> None:
    """Saved by diffusers itself, without our header: networks, encoders and pictures are the same here."""
    prior = StableCascadePriorPipeline.from_pretrained(pipelines / "prior")
    decoder = StableCascadeDecoderPipeline.from_pretrained(pipelines / "decoder")
    prior.save_pretrained(tmp_path / "prior")
    decoder.save_pretrained(tmp_path / "decoder")
    assert set(contents(tmp_path / "prior")) == {"stage_c", "text_encoder", "image_encoder"}
    assert set(contents(tmp_path)) == {"stage_a", "stage_b", "stage_c", "text_encoder", "image_encoder"}
    for name, folder in (("stage_c", "prior"), ("stage_b", "decoder"), ("stage_a", "decoder")):
        loaded = load_network(tmp_path / folder, name)
        assert same_state(loaded.state_dict(), load_network(pipelines / folder, name).state_dict())
    here, there = TextEncoder(source=str(tmp_path / "prior")), TextEncoder(source=str(pipelines / "prior"))
    assert torch.equal(here(PROMPTS).tokens, there(PROMPTS).tokens)


def test_pipelines_are_whole_cascades(pipelines: Path) -> None:
    """A pipeline takes the place of a run, its encoders included."""
    cascade = Cascade.load(str(pipelines / "combined"), device="cpu")
    settings = {"width_px": SIDE_PX, "height_px": SIDE_PX}
    pictures = cascade.generate(PROMPTS, seeds=[1, 2], **settings)
    assert [picture.image.size for picture in pictures] == [(SIDE_PX, SIDE_PX)] * 2


def test_every_source_draws_the_same_picture(
    networks: tuple[Path, dict[str, Any]], pipelines: Path, tmp_path: Path
) -> None:
    """Runs, pipelines, checkpoints for ComfyUI, official files: named as they are, without conversion."""
    runs = networks[0]
    convert(gather(runs), tmp_path / "comfyui", Settings("comfyui"))
    convert(gather(runs), tmp_path / "official", Settings("official"))
    encoder = str(pipelines / "prior")
    sources: list[dict[str, Any]] = [
        {"run": str(runs)},
        {"run": str(pipelines / "combined")},
        {"run": str(tmp_path / "official")},
        {"run": str(tmp_path / "comfyui"), "text_encoder": encoder},
        {
            "stage_a": str(pipelines / "decoder"),
            "stage_b": str(pipelines / "decoder" / "decoder"),
            "stage_c": str(tmp_path / "comfyui" / "stable_cascade_stage_c.safetensors"),
            "text_encoder": encoder,
        },
    ]
    settings = {"width_px": SIDE_PX, "height_px": SIDE_PX}
    drawn = [Cascade.load(device="cpu", **source).generate("a red circle", **settings) for source in sources]
    first = drawn[0][0].image.tobytes()
    assert all(pictures[0].image.tobytes() == first for pictures in drawn)


def test_everything_survives_the_way_through_a_pipeline(
    networks: tuple[Path, dict[str, Any]], pipelines: Path
) -> None:
    before, after = gather(networks[0]), gather(pipelines / "combined")
    assert before.keys() - after.keys() == {"semantic_compressor", "previewer"}
    for name, part in after.items():
        assert part.config.items() >= before[name].config.items()
        assert {key: value for key, value in part.facts.items() if key != "converted"} == before[name].facts
        states = [{key: tensor.read() for key, tensor in p.state.items()} for p in (part, before[name])]
        assert same_state(*states)


def test_another_diffusion_is_refused(networks: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    parts = chosen(gather(networks[0]), ["prior"])
    parts["stage_c"].facts["gdf"] = {**gdf.RELEASED_SPEC, "target": {"name": "VTarget"}}
    with pytest.raises(ValueError, match="stage_c: trained with VTarget; diffusers' pipelines and ComfyUI"):
        convert(parts, tmp_path / "prior", Settings("diffusers"))
    with pytest.raises(ValueError, match="also needs text_encoder"):
        convert(
            {"stage_b": parts["stage_c"], "stage_a": parts["stage_c"]}, tmp_path / "x", Settings("diffusers")
        )
