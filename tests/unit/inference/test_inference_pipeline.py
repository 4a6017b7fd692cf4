"""The cascade on very small networks: every task, and what its pictures depend on and what not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gdf import SAMPLERS
from inference import TASKS, Cascade, Picture, Request, StageSettings, Step
from inference.originals import originals
from inference.rng import stage_generator
from modules.weights import load_network

FAST = {"stage_c": StageSettings(steps=2), "stage_b": StageSettings(steps=2)}


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


def differ(a: Picture, b: Picture) -> bool:
    """More than rounding tells two pictures apart."""
    return pixels(a).shape != pixels(b).shape or np.abs(pixels(a) - pixels(b)).max() > 1


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_pictures_of_the_size_asked_for(
    cascade: Cascade, photo: str, mask: str, task: str
) -> None:
    made_from: dict[str, Any] = {} if task in ("text_to_image", "preview") else {"image": photo}
    made_from |= {"inpaint": {"mask": mask}, "outpaint": {"margins": {"left_px": 9}}}.get(task, {})
    pictures = cascade.generate(
        "a red circle", [1, 2], task=task, width_px=44, height_px=32, **made_from, **FAST
    )
    expected = (8 * 5, 8 * 3) if task == "preview" else (44, 32)
    assert [p.image.size for p in pictures] == [expected] * 2
    assert pictures[0].facts["seed"] == 1
    if task == "reconstruct":  # the compressor's latents are the same, Stage B's noise is not
        assert differ(*pictures)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 47), (101, 18), (64, 64)])
def test_odd_sizes_work(cascade: Cascade, width: int, height: int) -> None:
    [picture] = cascade.generate("a", width_px=width, height_px=height, **FAST)
    assert picture.image.size == (width, height)


def test_sizes_that_are_not_asked_for(cascade: Cascade, photo: str) -> None:
    def size(**settings: Any) -> tuple[int, int]:
        [[request]] = cascade.batches([Request(**settings)], 1)
        return request.width_px or 0, request.height_px or 0

    assert size() == (32, 32)  # what Stage C was trained with
    assert size(task="image_to_image", image=photo) == (37, 28)  # as many pixels, the photo's proportions
    assert size(task="reconstruct", image=photo) == (64, 48)  # the photo's own
    assert size(task="reconstruct", image=photo, width_px=32) == (32, 24)


def test_a_picture_depends_on_prompt_seed_and_negative_prompt(cascade: Cascade) -> None:
    first = cascade.generate("a red circle", 3, **FAST)[0]
    assert differ(first, cascade.generate("a blue square", 3, **FAST)[0])
    assert differ(first, cascade.generate("a red circle", 4, **FAST)[0])
    assert differ(first, cascade.generate("a red circle", 3, negative_prompt="blue", **FAST)[0])


def test_a_picture_does_not_depend_on_its_batch(cascade: Cascade) -> None:
    prompts = ["a red circle", "a blue square", "blue", "square"]
    together = cascade.generate(prompts, [5, 6, 7, 8], batch_size=4, **FAST)
    for batch_size, order in ((1, [1]), (3, [2, 0, 3])):
        others = cascade.generate(
            [prompts[i] for i in order], [5 + i for i in order], batch_size=batch_size, **FAST
        )
        for i, picture in zip(order, others, strict=True):
            assert not differ(picture, together[i])


def test_the_same_twice(cascade: Cascade) -> None:
    a, b = (cascade.generate("a red circle", 9, **FAST)[0] for _ in range(2))
    assert np.array_equal(pixels(a), pixels(b))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_serves_both_stages(cascade: Cascade, sampler: str) -> None:
    settings = {
        "stage_c": StageSettings(steps=2, sampler=sampler),
        "stage_b": StageSettings(steps=2, sampler=sampler),
    }
    assert np.ptp(pixels(cascade.generate("a", 0, **settings)[0])) > 0


def test_every_setting_of_a_stage_reaches_it(cascade: Cascade) -> None:
    base = {
        "stage_c": StageSettings(steps=2, guidance=3.0),
        "stage_b": StageSettings(steps=2, guidance=3.0),
    }
    first = cascade.generate("red", 1, **base)[0]
    changes = [{"steps": 3}, {"guidance": 1.0}, {"guidance": (3.0, 1.0)}, {"shift": 1.5}, {"rescale": 0.0}]
    for stage, settings in base.items():
        for change in changes:
            changed = {**base, stage: replace(settings, **change)}
            assert differ(first, cascade.generate("red", 1, **changed)[0]), (stage, change)


def test_strength_says_how_much_of_the_image_is_left(cascade: Cascade, photo: str) -> None:
    def latents(strength: float) -> torch.Tensor:
        seen: list[Step] = []
        settings = {**FAST, "stage_c": StageSettings(steps=8, guidance=1.0)}
        cascade.generate(
            "", 1, task="image_to_image", image=photo, strength=strength, on_step=seen.append, **settings
        )
        of_c = [step for step in seen if step.stage == "stage_c"]
        assert len(of_c) == of_c[0].steps == round(8 * strength)
        return of_c[-1].latents

    request = Request(task="image_to_image", image=photo)
    [[request]] = cascade.batches([request], 1)
    with torch.inference_mode():
        start = cascade.stages.compress(originals([request]).images, cascade.stages.grid_c(request.size))
    assert (latents(0.125) - start).abs().mean() < 0.5 * (latents(1.0) - start).abs().mean()


def test_a_variation_depends_on_its_image(cascade: Cascade, photo: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "green").save(tmp_path / "green.png")
    a, b = (
        cascade.generate("a", 1, task="image_variation", image=image, **FAST)[0]
        for image in (photo, str(tmp_path / "green.png"))
    )
    assert differ(a, b)


def test_steps_are_reported(cascade: Cascade) -> None:
    seen: list[Step] = []
    cascade.generate(["a", "red"], on_step=seen.append, batch_size=2, **FAST)
    assert [(s.stage, s.step, s.steps) for s in seen] == [
        ("stage_c", 1, 2), ("stage_c", 2, 2), ("stage_b", 1, 2), ("stage_b", 2, 2)
    ]  # fmt: skip
    assert seen[0].latents.shape == (2, 16, 3, 3)


def test_batches_hold_what_agrees_and_keep_the_order(cascade: Cascade) -> None:
    requests = [Request(seed=i, width_px=16 if i in (2, 3) else 32) for i in range(7)]
    batches = cascade.batches(requests, 2)
    assert [[r.seed for r in batch] for batch in batches] == [[0, 1], [2, 3], [4, 5], [6]]


def test_prompts_and_seeds_pair_up(cascade: Cascade) -> None:
    made = cascade.generate(["a", "red"], [1, 2], task="preview", **FAST)
    assert [(p.facts["prompt"], p.facts["seed"]) for p in made] == [("a", 1), ("red", 2)]
    with pytest.raises(ValueError, match="prompt: 2 for 3 pictures"):
        cascade.generate(["a", "red"], [1, 2, 3])


def test_averaged_weights_unless_told_otherwise(cascade: Cascade, tiny_runs: Path) -> None:
    plain = Cascade.load(str(tiny_runs), device="cpu", ema=False)
    assert plain.networks.path("stage_c").name == "stage_c.safetensors"
    assert cascade.networks.path("stage_c").name == "stage_c_ema.safetensors"
    assert differ(plain.generate("a", **FAST)[0], cascade.generate("a", **FAST)[0])


@pytest.mark.parametrize("offload", ["none", "stage"])
def test_averaged_weights_inside_of_a_file_unless_told_otherwise(
    offload: Any, tiny_runs: Path, tmp_path: Path
) -> None:
    state = load_network(tiny_runs / "previewer", "previewer").state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"model": state, "ema": zeros}, tmp_path / "previewer.ckpt")
    for ema in (True, False):
        cascade = Cascade.load(
            device="cpu", ema=ema, offload=offload, previewer=str(tmp_path / "previewer.ckpt")
        )
        with cascade.networks.use("previewer") as network:
            assert network.blocks[0].weight.any() == (not ema)


def test_single_files_take_the_place_of_a_run(cascade: Cascade, tiny_runs: Path) -> None:
    files = {
        name: str(tiny_runs / run / "weights" / f"{name}_ema.safetensors")
        for name, run in (("stage_a", "stage_a"), ("stage_b", "stage_b"), ("stage_c", "stage_c"))
    }
    encoder = str(tiny_runs / "stage_c" / "text_encoder")
    single = Cascade.load(device="cpu", text_encoder=encoder, **files)
    assert not differ(single.generate("a", **FAST)[0], cascade.generate("a", **FAST)[0])


def test_bf16_and_offload_draw_nearly_the_same(cascade: Cascade, tiny_runs: Path) -> None:
    exact = cascade.generate("a red circle", 2, **FAST)[0]
    low = Cascade.load(str(tiny_runs), device="cpu", dtype="bf16", offload="stage")
    drawn = low.generate("a red circle", 2, **FAST)[0]
    assert low.stages.networks.peek("stage_c").dtype == torch.bfloat16
    assert np.abs(pixels(exact) - pixels(drawn)).mean() < 8
    assert drawn.facts["dtype"] == "bf16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "paint"}, "task: found 'paint'; did you mean 'inpaint'?"),
        ({"task": "x"}, "task: found 'x'; expected one of: image_to_image"),
        ({"task": "reconstruct"}, "image: the task reconstruct takes a picture"),
        ({"image": "x.png"}, "image: the task text_to_image takes no picture"),
        ({"strength": 0.5}, "strength: the task text_to_image takes none .only image_to_image, inpaint, out"),
        ({"task": "reconstruct", "image": "x.png"}, "x.png does not exist"),
        ({"width_px": 3}, "width_px: expected 16 to 16384, found 3"),
    ],
)
def test_what_cannot_be_made_is_told_in_one_line(
    cascade: Cascade, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        cascade.generate("a", **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda runs: Cascade.load("nowhere"), "run: the folder nowhere does not exist"),
        (lambda runs: Cascade.load(str(runs), dtype="fp8"), "dtype: found 'fp8'; "),
        (lambda runs: Cascade.load(str(runs), device="cuda:77"), "device: 'cuda:77' cannot be used here"),
        (
            lambda runs: Cascade.load(str(runs), device="gpu"),
            "device: found 'gpu'; expected one of: auto, cpu",
        ),
        (lambda runs: Cascade.load().generate("a"), "stage_c: no weights given; set run="),
        (lambda runs: Cascade.load(str(runs / "stage_c")).generate("a"), "stage_b"),
        (lambda runs: Cascade.load(str(runs), stage_a="none.safetensors").generate("a"), "none.safetensors"),
    ],
)
def test_networks_that_cannot_be_had_are_told_in_one_line(
    tiny_runs: Path, load: Callable[[Path], Any], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load(tiny_runs)
    assert "\n" not in str(error.value)


def test_a_variation_without_an_image_encoder_says_what_to_set(tiny_runs: Path, photo: str) -> None:
    with pytest.raises(FileNotFoundError, match="image_encoder: .* set weights.image_encoder="):
        Cascade.load(str(tiny_runs)).generate("a", task="image_variation", image=photo)


def test_streams_differ_by_seed_and_stage() -> None:
    draws = {
        torch.rand(1, generator=stage_generator(s, n)).item()
        for s in (0, 1, 2**62)
        for n in ("stage_b", "stage_c")
    }
    assert len(draws) == 6
