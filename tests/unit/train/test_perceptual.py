"""The perceptual distance: a VGG16 under its official names, and the laws of a distance."""

from pathlib import Path

import pytest
import torch

from train.losses.perceptual import PerceptualDistance, vgg16_features


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with torchvision's names and shapes and random values, classifier included."""
    torch.manual_seed(0)
    tensors = {f"features.{name}": value for name, value in vgg16_features().state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({**tensors, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def distance(vgg_file: Path) -> PerceptualDistance:
    return PerceptualDistance(vgg_file)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    shapes = {name: tuple(value.shape) for name, value in vgg16_features().state_dict().items()}
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(shapes) == [f"{index}.{kind}" for index in convolutions for kind in ("weight", "bias")]
    assert shapes["0.weight"] == (64, 3, 3, 3) and shapes["28.weight"] == (512, 512, 3, 3)
    assert sum(value.numel() for value in vgg16_features().parameters()) == 14_714_688


def test_equal_pictures_have_no_distance_and_others_have_some(distance: PerceptualDistance) -> None:
    images, others = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    assert torch.equal(distance(images, images), torch.zeros(2))
    assert (distance(images, others) > 0).all()
    assert torch.allclose(distance(images, others), distance(others, images), rtol=1e-4)


def test_more_damage_is_farther_away(distance: PerceptualDistance) -> None:
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    near, far = (distance(images, (images + strength * noise).clamp(0, 1)) for strength in (0.05, 0.3))
    assert near < far


def test_gradients_reach_the_picture_and_nothing_else(distance: PerceptualDistance) -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(images, torch.rand(1, 3, 32, 32)).sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in distance.parameters())


def test_linear_weights_weigh_the_channels(vgg_file: Path, tmp_path: Path) -> None:
    channels = (64, 128, 256, 512, 512)
    tensors = {
        f"lin{level}.model.1.weight": torch.zeros(1, size, 1, 1) for level, size in enumerate(channels)
    }
    tensors["lin0.model.1.weight"] += 2 / 64
    torch.save(tensors, tmp_path / "lpips.pth")
    weighted = PerceptualDistance(vgg_file, tmp_path / "lpips.pth")
    images, others = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    first_level_only = PerceptualDistance(vgg_file)
    first_level_only.channel_weights[1:] = [torch.zeros(size) for size in channels[1:]]
    assert torch.allclose(weighted(images, others), 2 * first_level_only(images, others))


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth.*vgg16-397923af"):
        PerceptualDistance(tmp_path / "nowhere.pth")


def test_another_file_is_refused(tmp_path: Path, vgg_file: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not a VGG16 file"):
        PerceptualDistance(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="torch cannot read"):
        PerceptualDistance(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="not LPIPS"):
        PerceptualDistance(vgg_file, vgg_file)
