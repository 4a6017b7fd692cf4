"""Inpainting, outpainting and super-resolution: what is kept, what is drawn anew, and in which size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gdf
from inference import Cascade, Request, StageSettings, Step
from inference.adapters import Margins
from inference.inputs import Inputs
from inference.masks import fit_mask, masks_at, open_mask, put_back, seam, widened
from inference.originals import originals
from inference.sampling import Start, sample
from inference.sizes import Size
from inference.sources import source_size
from tests.conftest import GDF_SPEC
from tests.unit.inference.test_inference_pipeline import FAST, differ, pixels


def prepared(cascade: Cascade, **settings: Any) -> Request:
    [[request]] = cascade.batches([Request(**settings)], 1)
    return request


class Unconditional:
    """A function of latents and noise level as a network whose conditions determine nothing."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def prepare(self, x: torch.Tensor) -> None:
        pass

    def __call__(self, x: torch.Tensor, r: torch.Tensor, prepared: None) -> torch.Tensor:
        return self.function(x, r)


def through(
    network: Any, start: Start | None, t_start: float = 1.0, sampler: str = "ddpm"
) -> list[torch.Tensor]:
    """The clean latents after each of four steps."""
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    noise = gdf.randn((2, 3, 4, 4), generators)
    settings = gdf.SamplingSettings(steps=4, guidance=1.0, sampler=sampler)
    diffusion = gdf.build(GDF_SPEC)
    made = Unconditional(network)
    return list(sample(made, diffusion, settings, Inputs({}, {}), noise, generators, start))


RIGHT_HALF = (torch.arange(4) > 1).float().expand(2, 1, 4, 4)  # is drawn anew


def test_known_latents_come_back_to_the_last_bit() -> None:
    known = torch.randn(2, 3, 4, 4)
    *_, last = through(lambda x, r: torch.sin(3 * x), Start(known, RIGHT_HALF))
    assert torch.equal(last[..., :2], known[..., :2])
    assert not torch.isclose(last[..., 2:], known[..., 2:]).any()


def test_known_latents_have_the_noise_of_each_step() -> None:
    """A network that is told nothing sees them noised with the schedule's own shares, then less and less."""
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return torch.zeros_like(x)

    known = torch.full((2, 3, 4, 4), 5.0)
    through(network, Start(known, RIGHT_HALF))
    diffusion = gdf.build(GDF_SPEC)
    a, b = diffusion.input_scaler(diffusion.schedule(torch.linspace(1, 0, 5)))
    noises = [(x[..., :2] - share * 5) / deviation for x, share, deviation in zip(seen, a, b, strict=False)]
    for noise in noises[1:]:
        assert torch.allclose(noise, noises[0], atol=1e-3)
    assert 0.7 < noises[0].std() < 1.3


def test_masks_of_ones_keep_nothing_and_of_zeros_everything() -> None:
    def network(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return torch.cos(x)

    known, ones = torch.randn(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    for sampler in gdf.SAMPLERS:
        free = through(network, None, sampler=sampler)
        masked = through(network, Start(known, ones), sampler=sampler)
        assert all(torch.equal(a, b) for a, b in zip(free, masked, strict=True)), sampler
        assert torch.equal(through(network, Start(known, 0 * ones), sampler=sampler)[-1], known)


def test_what_is_outside_the_mask_is_kept_pixel_by_pixel(cascade: Cascade, photo: str, mask: str) -> None:
    [picture] = cascade.generate("a", task="inpaint", image=photo, mask=mask, width_px=64, edge_px=4, **FAST)
    with Image.open(photo) as opened:
        before = np.asarray(opened).astype(int)
    same = (pixels(picture) == before).all(-1)
    assert same[:, : 32 - 4].all()
    assert not same[:, 32:].all(0).any()


def test_keeping_can_be_switched_off(cascade: Cascade, photo: str, mask: str) -> None:
    settings = {"task": "inpaint", "image": photo, "mask": mask, **FAST}
    kept, drawn = (cascade.generate("a", keep=keep, **settings)[0] for keep in (True, False))
    width = kept.image.width
    assert np.array_equal(pixels(kept)[:, width // 2 + 1 :], pixels(drawn)[:, width // 2 + 1 :])
    assert differ(kept, drawn)


def test_the_prompt_and_the_mask_decide_what_is_drawn(
    cascade: Cascade, photo: str, mask: str, tmp_path: Path
) -> None:
    Image.new("L", (64, 48), "white").save(tmp_path / "all.png")
    first, prompt, area = (
        cascade.generate(text, 1, task="inpaint", image=photo, mask=path, keep=False, **FAST)[0]
        for text, path in (("a", mask), ("red", mask), ("a", str(tmp_path / "all.png")))
    )
    assert differ(first, prompt)
    assert differ(first, area)


def test_an_inpainting_depends_on_its_own_picture_and_mask_alone(
    cascade: Cascade, photo: str, other_photo: str, mask: str, tmp_path: Path
) -> None:
    with Image.open(mask) as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "flipped.png")
    images, masks = [photo, other_photo], [mask, str(tmp_path / "flipped.png")]
    together = cascade.generate("a", [1, 2], task="inpaint", image=images, mask=masks, **FAST)
    assert together[1].facts["batch"] == {"rows": 2, "row": 1}
    for i, picture in enumerate(together):
        alone = cascade.generate("a", i + 1, task="inpaint", image=images[i], mask=masks[i], **FAST)
        assert not differ(picture, alone[0])


def test_strength_shortens_an_inpainting(cascade: Cascade, photo: str, mask: str) -> None:
    seen: list[Step] = []
    settings = {"stage_c": StageSettings(steps=8), "stage_b": FAST["stage_b"]}
    cascade.generate(
        "a", task="inpaint", image=photo, mask=mask, strength=0.5, on_step=seen.append, **settings
    )
    assert [step.steps for step in seen if step.stage == "stage_c"] == [4] * 4
    assert prepared(cascade, task="inpaint", image=photo, mask=mask).strength == 1


def test_outpainting_adds_margins_and_keeps_the_picture(cascade: Cascade, photo: str) -> None:
    margins = {"left_px": 10, "bottom_px": 6}
    [picture] = cascade.generate(
        "a", task="outpaint", image=photo, margins=margins, width_px=74, height_px=54, edge_px=0, **FAST
    )
    assert picture.image.size == (74, 54)
    with Image.open(photo) as opened:
        assert np.array_equal(pixels(picture)[:48, 10:], np.asarray(opened))


def test_sizes_that_are_not_asked_for(cascade: Cascade, tmp_path: Path) -> None:
    def size(width: int, height: int, **settings: Any) -> tuple[int, int]:
        Image.new("RGB", (width, height)).save(tmp_path / "p.png")
        Image.new("L", (width, height), "white").save(tmp_path / "m.png")
        if settings["task"] == "inpaint":
            settings["mask"] = str(tmp_path / "m.png")
        return prepared(cascade, image=str(tmp_path / "p.png"), **settings).size[::-1]

    assert size(40, 30, task="inpaint") == (40, 30)  # near the 32 x 32 of Stage C
    assert size(400, 100, task="inpaint") == (64, 16)
    assert size(18, 18, task="inpaint") == (32, 32)
    assert size(30, 20, task="outpaint", margins={"right_px": 10}) == (40, 20)
    assert size(32, 32, task="outpaint", margins={"right_px": 64, "top_px": 8}) == (96, 40)
    assert size(64, 64, task="outpaint", margins={"right_px": 64}) == (64, 32)
    assert size(20, 30, task="super_resolution") == (40, 60)


@pytest.mark.parametrize(("random_scale", "seen_px"), [([0.5, 1.0], (48, 64)), ([1.0, 1.0], (96, 128))])
def test_super_resolution_shows_stage_b_what_it_was_trained_to_see(
    cascade: Cascade,
    photo: str,
    monkeypatch: pytest.MonkeyPatch,
    random_scale: list[float],
    seen_px: tuple[int, int],
) -> None:
    monkeypatch.setitem(cascade.networks.facts("stage_b"), "random_scale", random_scale)
    grids: list[tuple[int, ...]] = []
    handle = cascade.networks.peek("stage_b").register_forward_pre_hook(
        lambda _, args, keywords: grids.append(tuple(keywords["effnet"].shape[2:])), with_kwargs=True
    )
    [large] = cascade.generate("", task="super_resolution", image=photo, **FAST)
    handle.remove()
    assert large.image.size == (128, 96)
    assert set(grids) == {tuple(int(side * 0.75 / 8) for side in seen_px)}


def test_super_resolution_with_a_controlnet_draws_with_stage_c(
    cascade: Cascade, adapters: Path, photo: str, other_photo: str
) -> None:
    seen: list[Step] = []
    settings = {"task": "super_resolution", "controls": [str(adapters / "super_resolution")], **FAST}
    first, second = (
        cascade.generate("a", 1, image=image, on_step=seen.append, **settings)[0]
        for image in (photo, other_photo)
    )
    assert {step.stage for step in seen} == {"stage_c", "stage_b"}
    assert first.image.size == (128, 96)
    assert differ(first, second)


def test_an_inpainting_controlnet_looks_at_picture_and_mask(
    cascade: Cascade, adapters: Path, photo: str, mask: str
) -> None:
    seen: list[torch.Tensor] = []
    weights = str(adapters / "inpainting")
    network = cascade.networks.peek_at("controlnet", cascade.networks.find("controlnet", weights))
    handle = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cascade.generate("a", 1, task="inpaint", image=photo, mask=mask, controls=[weights], **FAST)
    handle.remove()
    control = seen[0]
    middle = control.shape[-1] // 2
    assert not control[:, 3, :, : middle - 1].any()
    assert (control[..., middle + 1 :] == 1).all()
    assert control[:, :3, :, : middle - 1].std() > 0.1


def test_masks_are_read_and_fitted(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (6, 0, 8, 4))  # transparent: to be drawn anew, as other tools have it
    image.save(tmp_path / "m.png")
    mask = fit_mask(open_mask(str(tmp_path / "m.png"), Size(4, 8)), Size(4, 8))
    assert mask.shape == (1, 4, 8)
    assert torch.equal(mask[0, 0], torch.tensor([0.0] * 6 + [1.0] * 2))
    assert torch.equal(masks_at(mask[None], (2, 3))[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_a_thin_mask_is_not_lost(tmp_path: Path) -> None:
    image = Image.new("L", (200, 200))
    image.paste(255, (100, 0, 102, 200))
    assert fit_mask(image, Size(20, 20)).sum() >= 20


def test_seams_are_ramps_outside_the_mask() -> None:
    mask = torch.zeros(1, 1, 1, 20)
    mask[..., 12:] = 1
    ramp = seam(mask, 6)[0, 0, 0]
    assert torch.equal(ramp[12:], torch.ones(8))
    assert torch.equal(ramp[:6], torch.zeros(6))
    steps = ramp[6:13].diff()
    assert (steps > 0).all()
    assert torch.allclose(steps, steps[0].expand(6), atol=1e-6)
    assert torch.equal(seam(mask, 0), mask)


def test_a_seam_wider_than_the_picture_takes_no_more_memory_than_it_needs() -> None:
    masks = torch.zeros(1, 1, 6, 8)
    masks[..., 0, 0] = 1
    assert torch.equal(seam(masks, 10**9), torch.ones_like(masks))
    assert torch.equal(seam(0 * masks, 10**9), 0 * masks)


def test_kept_pixels_are_kept_to_the_last_bit() -> None:
    drawn, original = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 6:] = 1
    result = put_back(drawn, original, mask, 2)
    assert torch.equal(result[..., :4], original[..., :4])
    assert torch.equal(result[..., 6:], drawn[..., 6:])


def test_margins_continue_the_outermost_pixels() -> None:
    image = Image.new("RGB", (2, 1), "red")
    image.putpixel((1, 0), (0, 0, 255))
    wide, mask = widened(image, Margins(left_px=1, right_px=2, bottom_px=1))
    assert source_size(wide) == source_size(mask) == Size(2, 5)
    assert [wide.getpixel((x, 1)) for x in range(5)] == [(255, 0, 0)] * 2 + [(0, 0, 255)] * 3
    assert np.asarray(mask).tolist() == [[255, 0, 0, 255, 255], [255] * 5]


@pytest.mark.parametrize("task", ["inpaint", "outpaint"])
def test_originals_have_masks(cascade: Cascade, photo: str, mask: str, task: str) -> None:
    made_from = {"mask": mask} if task == "inpaint" else {"margins": {"right_px": 64}}
    source = originals([prepared(cascade, task=task, image=photo, **made_from)])
    assert source.masks is not None
    assert source.masks.shape == (1, 1, *source.images.shape[2:])
    assert source.masks.mean() == pytest.approx(0.5, abs=0.05)
