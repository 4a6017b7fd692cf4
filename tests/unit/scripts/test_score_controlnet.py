"""How ControlNets of the demo are judged: edge agreement, what surrounds a gap, gaps that hide the object."""

import numpy as np
import pytest
import torch

from dataset_tools.shapes_world import Scene, all_scenes, draw
from modules.metrics import psnr
from scripts.adapter_scores._controls import as_image
from scripts.adapter_scores.controlnet import another, edge_f1, gap, surroundings_psnr


def line(row: int) -> torch.Tensor:
    edges = torch.zeros(1, 1, 8, 8)
    edges[..., row, :] = 1
    return edges


@pytest.mark.parametrize(("row", "f1"), [(3, 1.0), (4, 1.0), (5, 0.0)])
def test_edges_may_lie_one_pixel_beside_the_expected_ones(row: int, f1: float) -> None:
    assert edge_f1(line(3), line(row)) == [f1]


def test_missing_and_superfluous_edges_both_count() -> None:
    both = line(1) + line(6)
    assert edge_f1(both, line(1)) == edge_f1(line(1), both) == pytest.approx([2 / 3])
    assert edge_f1(line(1), torch.zeros(1, 1, 8, 8)) == [0.0]


def test_only_the_surroundings_of_a_gap_are_compared() -> None:
    torch.manual_seed(0)
    originals, known = torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    pixels = (originals + 0.1 * torch.rand(2, 3, 8, 8)).clamp(0, 1)
    assert surroundings_psnr(pixels, originals, known) == pytest.approx(psnr(pixels, originals).tolist())
    known[..., :5] = 0
    expected = psnr(pixels[..., 5:], originals[..., 5:]).tolist()
    pixels[..., :5] = 0.5
    assert surroundings_psnr(pixels, originals, known) == pytest.approx(expected, abs=1e-4)


def test_a_gap_hides_the_whole_object_and_leaves_most_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    for scene in all_scenes()[::7]:
        empty = draw(scene, rng)[:, [0 if scene.place.endswith(("right", "centre")) else 63]]
        differs = torch.from_numpy(np.abs(draw(scene, rng).astype(int) - empty).max(-1) > 8)
        mask = gap(scene)
        assert not (differs & (mask[0] == 0)).any()
        assert mask.mean() < 0.5


def test_another_object_differs_in_colour_and_shape_only() -> None:
    scene = Scene("orange", "cross", "small", "top left", "grey")
    assert another(scene) == Scene("red", "circle", "small", "top left", "grey")


@pytest.mark.parametrize(("channels", "mode"), [(1, "RGB"), (3, "RGB"), (4, "RGBA")])
def test_control_pictures_become_images(channels: int, mode: str) -> None:
    assert as_image(torch.rand(channels, 8, 8)).mode == mode
