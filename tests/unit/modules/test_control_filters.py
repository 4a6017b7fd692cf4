"""Laws of the control filters, and how they are found by name."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur as peer_blur

from modules import SemanticCompressor
from modules.adapters import filters
from modules.adapters.filters import build_filter, filter_names, released_filter
from modules.adapters.filters.inpainting import painted_over
from modules.adapters.masks import blobs, inner_mask, outer_mask, rectangle
from modules.adapters.pixels import closed, dilated, gaussian_blur, short_side_at_most
from modules.conditions import compress
from modules.registry import build
from modules.weights import save_network
from tests.unit.modules.test_controlnet import STAGES

ALONE = sorted(set(filter_names()) - {"identity"})  # those that need no weights of others
GREY = """
from dataclasses import dataclass
from modules.adapters.filters import ControlFilter
from modules.schema import bounded

@dataclass
class Grey(ControlFilter):
    gamma: float = bounded(1.0, least=0.1)

    def __call__(self, images, generators):
        return images.mean(1, keepdim=True) ** self.gamma
"""


def chance(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def picture(height: int = 64, width: int = 80) -> Tensor:
    """A white square on dark ground, with a little noise."""
    torch.manual_seed(0)
    image = 0.2 + 0.02 * torch.rand(1, 3, height, width)
    image[..., height // 4 : height // 2, width // 4 : width // 2] = 1.0
    return image


def control(name: str, images: Tensor, first: int = 0, **settings: Any) -> Tensor:
    made = build_filter({"name": name, **settings})
    made.compressor = SemanticCompressor(c_latent=5, backbone=STAGES).eval()
    return made(images, chance(len(images), first))


@pytest.mark.parametrize("name", ALONE)
def test_every_filter_gives_what_it_promises(name: str) -> None:
    made = build_filter({"name": name})
    images = torch.cat([picture(), picture().flip(3)])
    found = control(name, images)
    assert made.name == name
    assert found.shape[:2] == (2, 5 if name == "super_resolution" else made.channels)
    if made.in_workers:
        assert found.shape[2:] == images.shape[2:]
        assert found.min() >= 0 and found.max() <= 1 and found.min() < found.max()


@pytest.mark.parametrize("name", sorted(set(ALONE) - {"super_resolution"}))
@pytest.mark.parametrize("size", [(64, 80), (16, 16), (33, 250)])
def test_a_control_depends_on_its_picture_and_generator_alone(name: str, size: tuple[int, int]) -> None:
    images = torch.cat([picture(*size), torch.rand(1, 3, *size), torch.ones(1, 3, *size)])
    whole = control(name, images)
    for i in range(3):
        torch.testing.assert_close(control(name, images[i : i + 1], first=i), whole[i : i + 1])


def test_a_new_class_is_found_by_its_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "__path__", [*filters.__path__, str(tmp_path)])
    (tmp_path / "grey.py").write_text(GREY)
    importlib.invalidate_caches()
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(control("grey", images, gamma=2.0), images.mean(1, keepdim=True) ** 2)
    with pytest.raises(ValueError, match="control.gamma: expected at least 0.1, found 0.0"):
        build_filter({"name": "grey", "gamma": 0.0})
    with pytest.raises(ValueError, match="control.name: found 'gray'; did you mean 'grey'"):
        build_filter({"name": "gray"})


@pytest.mark.parametrize(
    ("name", "key"), [("canny", "size_px"), ("brightness", "size_px"), ("brightness", "closing_px")]
)
def test_settings_from_a_file_are_bounded(name: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"control.{key}: expected at most 4096, found 1000000"):
        build_filter({"name": name, key: 10**6})


def test_canny_draws_the_outline_and_nothing_else() -> None:
    edges = control("canny", picture())[0, 0]
    inside, outside = edges[20:28, 24:36], edges[40:]
    assert edges.unique().tolist() == [0.0, 1.0]
    assert edges.sum() > 60 and inside.sum() == 0 and outside.sum() == 0


def test_canny_keeps_the_shape_of_large_pictures() -> None:
    """In a picture twice as wide as high, a square's outline stays closed and as wide everywhere."""
    edges = control("canny", picture(448, 896), size_px=112)[0, 0]
    across = (edges[150] > 0).sum()  # two upright lines
    down = (edges[:, 300] > 0).sum()  # two level ones
    assert across == down > 0


@pytest.mark.parametrize("scale", [0.25, 0.5])
def test_pixelated_pictures_keep_their_mean_but_not_details(scale: float) -> None:
    images = torch.rand(1, 3, 32, 64)
    found = control("pixelated", images, scale=scale)
    assert abs(found.mean() - images.mean()) < 0.01 and found.std() < 0.7 * images.std()
    cell = int(1 / scale)
    assert torch.equal(found[..., ::cell, ::cell], found[..., 1::cell, 1::cell])


def test_super_resolution_sees_the_shrunk_picture_on_the_whole_pictures_grid() -> None:
    compressor = SemanticCompressor(c_latent=5, backbone=STAGES).eval()
    made = build_filter({"name": "super_resolution"}, compressor)
    images = picture(64, 128)
    found = made(images, chance(1))
    assert found.shape == (1, 5, 8, 16) and not found.requires_grad
    torch.testing.assert_close(found[..., ::2, ::2], compress(compressor, images, (4, 8)))
    assert made.channels == 5 and not made.in_workers
    with pytest.raises(ValueError, match="super_resolution needs a semantic compressor"):
        build_filter({"name": "super_resolution"})(images, chance(1))


def test_gradients_of_steps() -> None:
    images = torch.zeros(1, 3, 12, 12)
    images[:, 1, :, 6:] = 1.0
    edges = control("edge", images)
    torch.testing.assert_close(edges[0, 0, :, 5:7], torch.ones(12, 2))
    assert edges[0, 0, :, :3].max() == 0
    torch.testing.assert_close(control("edge", images / 2), edges / 2)
    assert control("edge", torch.rand(1, 3, 20, 30), size_px=10).shape == (1, 1, 20, 30)


def test_edges_by_a_learned_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, file = build("pidinet", {}).eval(), tmp_path / "edges.safetensors"
    save_network(file, network, "pidinet", {})
    images = picture()
    with torch.no_grad():
        torch.testing.assert_close(control("edge", images, weights=str(file)), network(images))


def test_brightness_has_three_levels() -> None:
    ramp = torch.linspace(0.2, 0.8, 90)[None, None, None].expand(1, 3, 32, 90)
    found = control("brightness", ramp)[0, 0]
    assert found.unique().tolist() == [0.0, 0.5, 1.0]
    torch.testing.assert_close(found.mean(), torch.tensor(0.5), atol=0.02, rtol=0)
    assert (found.diff(dim=1) >= 0).all()
    assert control("brightness", torch.ones(1, 3, 16, 16)).unique().tolist() == [0.5]


def test_brightness_loses_dark_details_with_blobs_only() -> None:
    image = torch.ones(1, 3, 64, 64)
    image[..., :32, :] = 0.0
    image[..., 48, 32] = 0.0
    assert control("brightness", image, blobs=0.0)[0, 0, 48, 32] == 0
    assert control("brightness", image, blobs=1.0)[0, 0, 48, 32] == 1


@pytest.mark.parametrize("area", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("make", [rectangle, blobs, inner_mask, outer_mask])
def test_masks_cover_the_area_that_is_asked_for(make: Any, area: float) -> None:
    masks = [make(48, 64, area, generator) for generator in chance(20)]
    for mask in masks:
        assert mask.shape == (1, 1, 48, 64) and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert abs(mask.mean() - area) < 0.03
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 15


def test_rectangles_reach_every_place() -> None:
    covered = sum(rectangle(12, 16, 0.2, generator) for generator in chance(300))
    assert covered.min() > 2


@pytest.mark.parametrize(("outpaint", "border"), [(0.0, 0.55), (1.0, 0.9)])
def test_outpainting_paints_the_borders(outpaint: float, border: float) -> None:
    found = control("inpainting", picture().expand(60, -1, -1, -1), outpaint=outpaint, area=[0.4, 0.6])
    mask = found[:, 3]
    edge = torch.cat([mask[:, 0], mask[:, -1]], dim=1).mean()
    assert edge > border if outpaint else edge < border


def test_painted_over_pictures_show_the_rest_exactly() -> None:
    images, masks = torch.rand(2, 3, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    found = painted_over(images, masks)
    hidden = masks.bool().expand(-1, 3, -1, -1)
    assert torch.equal(found[:, 3:], masks)
    assert (found[:, :3][hidden] == 1).all() and torch.equal(found[:, :3][~hidden], images[~hidden])
    with pytest.raises(ValueError, match=r"masks: expected shape \[2, 1, 8, 8\]"):
        painted_over(images, masks[:1])


def test_saliency_chooses_what_is_painted_over(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "saliency.safetensors"
    save_network(file, build("saliency", {}), "saliency", {})
    made = build_filter({"name": "inpainting", "saliency": str(file)})
    images = picture(64, 80)
    middle = float(made._network(images).median())  # type: ignore[attr-defined]
    inside, outside = (made.salient(images, [middle], [flag]) for flag in (False, True))  # type: ignore[attr-defined]
    assert 0 < inside.mean() < 1
    assert torch.equal(inside, 1 - outside)
    assert made(images, chance(1)).shape == (1, 4, 64, 80)


def test_identity_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"identity filter: weights: no .onnx files in .*; pip install insightface"
    ):
        build_filter({"name": "identity", "weights": str(tmp_path)})
    (tmp_path / "det.onnx").write_bytes(b"")
    try:
        importlib.import_module("insightface")
    except ImportError:
        with pytest.raises(ValueError, match="the identity filter needs insightface"):
            build_filter({"name": "identity", "weights": str(tmp_path)})


def test_released_controlnets_have_filters_of_their_channels() -> None:
    for mode, channels, name in (
        ("effnet", 1, "canny"),
        ("effnet", 4, "inpainting"),
        ("large", 16, "super_resolution"),
    ):
        made = build_filter(released_filter({"bottleneck_mode": mode, "c_in": channels}))
        assert (made.name, made.channels) == (name, channels)
    assert released_filter({"bottleneck_mode": "simple", "c_in": 512}) == {"name": "identity"}
    with pytest.raises(
        ValueError, match="no released ControlNet is simple with 4 channels; expected effnet with 1"
    ):
        released_filter({"bottleneck_mode": "simple", "c_in": 4})


@pytest.mark.parametrize(("kernel_px", "sigma"), [(3, None), (15, 1.0), (31, None)])
def test_blur_agrees_with_torchvisions(kernel_px: int, sigma: float | None) -> None:
    x = torch.rand(2, 3, 40, 33)
    expected = peer_blur(x, [kernel_px, kernel_px], None if sigma is None else [sigma, sigma])
    torch.testing.assert_close(gaussian_blur(x, kernel_px, sigma), expected)


def test_blur_of_pictures_smaller_than_its_kernel() -> None:
    assert torch.allclose(gaussian_blur(torch.full((1, 1, 2, 30), 0.3), 141), torch.tensor(0.3))
    row = torch.rand(1, 1, 1, 40)
    torch.testing.assert_close(gaussian_blur(row, 1), row)


def test_dilation_is_by_a_diamond_and_closing_fills_holes() -> None:
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1
    rows = torch.arange(9)
    distance = (rows[:, None] - 4).abs() + (rows[None] - 4).abs()
    assert torch.equal(dilated(point, 2)[0, 0], (distance <= 2).float())
    assert torch.equal(closed(1 - point, 1), torch.ones(1, 1, 9, 9))
    assert torch.equal(closed(point, 2), point)


def test_short_sides() -> None:
    x = torch.zeros(1, 3, 100, 250)
    assert short_side_at_most(x, 50) == (50, 125)
    assert short_side_at_most(x, 200) == short_side_at_most(x, None) == (100, 250)
