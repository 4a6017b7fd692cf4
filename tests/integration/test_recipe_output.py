"""What recipes show and leave behind, and the mistakes in their settings that they name."""

from pathlib import Path

import pytest
import torch

from modules.encoders import TextEncoder
from modules.weights import save_network
from tests.integration.recipe_cases import (
    GDF,
    RANDOM_A,
    STAGE_B,
    made,
    make_config,
    pictures,
)
from train.recipes import make_recipe
from train.rng import step_rng


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("stage_a", ["original", "reconstructed, quantized", "reconstructed"]),
        ("stage_b", ["original", "noised", "predicted", "sampled"]),
        ("stage_c", ["original", "noised", "predicted", "sampled"]),
        ("previewer", ["original", "previewed"]),
    ],
)
def test_sample_sheets_hold_pictures(name: str, rows: list[str]) -> None:
    recipe = made(make_config(name))
    sheet = recipe.sample(pictures(3), step_rng(0, 0, 0, 3))
    assert list(sheet) == rows
    for images in sheet.values():
        assert images.shape[:2] == (3, 3) and images.min() >= 0 and images.max() <= 1
    assert not any(images.requires_grad for images in sheet.values())


@pytest.mark.parametrize("viewer", [["previewer"], ["stage_a", "stage_b"], []])
def test_stage_c_shows_latents_by_what_it_is_given(viewer: list[str]) -> None:
    networks = {
        "previewer": {"config": {"c_in": 4, "c_hidden": 32}, "allow_random": True},
        "stage_a": RANDOM_A,
        "stage_b": {"config": STAGE_B, "allow_random": True},
    }
    model = {name: networks[name] for name in viewer}
    assert not made(make_config("stage_c", model=model)).viewer.networks, "no sheets are asked for"
    recipe = made(make_config("stage_c", model=model, run={"sample_every": 1}))
    sampled = recipe.sample(pictures(2), step_rng(0, 0, 0, 2))["sampled"]
    side = {"previewer": 8 * 8, "stage_a": 32}.get(viewer[0] if viewer else "", 8)
    assert sampled.shape == (2, 3, side, side)


def test_sheets_are_decoded_as_stage_b_says_it_is_best_sampled(tmp_path: Path) -> None:
    path = tmp_path / "stage_b.safetensors"
    stage_b = {"config": STAGE_B, "weights": str(path)}
    network = made(make_config("stage_b")).networks()["stage_b"]
    for facts, steps in (({"gdf": GDF, "sampling": {"steps": 3}}, 3), ({"gdf": GDF}, 10)):
        save_network(path, network, "stage_b", facts)
        recipe = made(make_config("stage_c", model={"stage_a": RANDOM_A, "stage_b": stage_b}))
        assert recipe.viewer.decoding.steps == steps


def test_half_a_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="stage_a and stage_b together"):
        make_recipe(make_config("stage_c", model={"stage_a": RANDOM_A}))


def test_headers_say_what_a_reader_needs() -> None:
    stage_b = made(make_config("stage_b", recipe={"compressor_scale": 0.75}))
    sampling = {"steps": 2, "guidance": 4.0, "shift": 1.0, "sampler": "ddpm", "rescale": 0.7}
    facts_b = {"compressor_scale": 0.75, "random_scale": [0.5, 1.0], "text_encoder": "text_encoder"}
    assert stage_b.facts("stage_b") == {"gdf": GDF, "sampling": sampling, **facts_b}
    assert stage_b.facts("semantic_compressor") == {}
    stage_c = made(make_config("stage_c"))
    facts = {"compression": 4.0, "image_size_px": 32, "text_encoder": "text_encoder"}
    facts |= {"gdf": GDF, "sampling": sampling, "image_encoder": "image_encoder"}
    assert stage_c.facts("stage_c") == facts


def test_pictures_in_the_compressors_size_stand_for_larger_ones() -> None:
    """As released: trained on 768 px for pictures of 1024 px, 42.67 px per latent of factor 32."""
    facts = made(make_config("stage_c", recipe={"compression": 4 * 4 / 3})).facts("stage_c")
    assert facts["image_size_px"] == round(32 * 4 / 3)
    facts = made(make_config("stage_c", recipe={"compressor_scale": 0.5})).facts("stage_c")
    assert (facts["compression"], facts["image_size_px"]) == (8.0, 32)


def test_encoders_that_the_config_made_are_exported(tmp_path: Path) -> None:
    recipe = made(make_config("stage_c"))
    recipe.export(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image_encoder", "text_encoder"]
    again = TextEncoder(source=str(tmp_path / "text_encoder"))(["red circle"])
    torch.testing.assert_close(again.tokens, recipe.encoders.text(["red circle"]).tokens)


def test_stage_c_reads_the_compressor_of_a_stage_b_run(tmp_path: Path) -> None:
    stage_b = made(make_config("stage_b"))
    (tmp_path / "weights").mkdir()
    compressor = stage_b.networks()["semantic_compressor"]
    save_network(
        tmp_path / "weights" / "semantic_compressor.safetensors", compressor, "semantic_compressor", {}
    )
    config = make_config("stage_c")
    config.model["semantic_compressor"] = {"weights": str(tmp_path)}
    torch.testing.assert_close(made(config).semantic_compressor.state_dict(), compressor.state_dict())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("stage_b", {"model": {"stage_a": {}}}, r"model\.stage_a\.weights: missing"),
        ("stage_b", {"model": {"stage_d": {}}}, r"model\.stage_d: unknown key; did you mean 'stage_[ab]'"),
        ("stage_b", {"recipe": {"caption_droput": 0.1}}, r"recipe\.caption_droput: .*'caption_dropout'"),
        ("stage_b", {"recipe": {"latents_kept": 2.0}}, r"recipe\.latents_kept: expected at most 1"),
        ("stage_b", {"recipe": {"random_scale": [1.0, 0.5]}}, "random_scale: expected 0 < low"),
        ("stage_b", {"recipe": {"noise": "pink"}}, r"recipe\.noise: found 'pink'"),
        ("stage_b", {"model": {"stage_b": {"config": {"c_hiden": [8]}}}}, r"model\.stage_b.*'c_hidden'"),
        (
            "stage_b",
            {"model": {"semantic_compressor": {"train": False}}},
            r"semantic_compressor\.weights: miss",
        ),
        ("stage_b", {"gdf": {"target": {"name": "VTarge"}}}, "'VTarget'"),
        ("stage_b", {"recipe": {"sampling": {"sampler": "ddmp"}}}, r"recipe\.sampling\.sampler: .*'dd[pi]m'"),
        ("stage_c", {"model": {"text_encoder": {}}}, r"model\.text_encoder: set either source"),
        ("stage_c", {"recipe": {"name": "stage_d"}}, r"recipe\.name: no recipe is called 'stage_d'"),
        ("stage_a", {"recipe": {"perceptual_weight": 1.0}}, "perceptual_weights: missing"),
    ],
)
def test_mistakes_are_named_before_anything_is_built(name: str, changes: dict, message: str) -> None:
    config = make_config(name)
    for group, values in changes.items():
        getattr(config, group).update(values)
    with pytest.raises(ValueError, match=message) as error:
        make_recipe(config)
    assert "\n" not in str(error.value)
