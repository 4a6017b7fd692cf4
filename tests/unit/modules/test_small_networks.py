"""Discriminator, previewer and semantic compressor."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import efficientnet_v2_s

import modules
from modules import Discriminator, Previewer, SemanticCompressor, normalise_images
from modules.discriminator import SpectralConv2d
from modules.weights import load_network

STAGES: dict[str, Any] = {
    "stages": [["fused", 1, 3, 1, 8, 8, 1], ["fused", 2, 3, 2, 8, 16, 2], ["mbconv", 2, 3, 2, 16, 24, 1]],
    "c_last": 24,
}


def parameters_without_gradient(network: nn.Module) -> list[str]:
    return [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_spectral_norm_is_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(3, 5)
    layer.reset_parameters()
    layer.power_iteration(100)
    matrix = layer.weight_orig.flatten(1)
    sigma = (layer.weight_u @ matrix @ layer.weight_v).item()
    assert sigma == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-4)
    x = torch.randn(1, 3, 6, 6)
    expected = nn.functional.conv2d(x, layer.weight_orig / sigma, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_discriminator_changes_nothing_in_a_forward() -> None:
    network = Discriminator(c_hidden=16, depth=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.rand(2, 3, 32, 32)).mean().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    nn.init.normal_(network.encoder[0].weight_orig)
    network.update_spectral_norms()
    assert not torch.equal(network.encoder[0].weight_u, before["encoder.0.weight_u"])


def test_discriminator_judges_patches() -> None:
    network = Discriminator(c_hidden=16, depth=4)
    logits = network(torch.rand(2, 3, 48, 32))
    assert logits.shape == (2, 1, 3, 2)
    logits.square().sum().backward()
    # A bias before an instance norm has no effect.
    inert = {name for name in parameters_without_gradient(network) if name.endswith("bias")}
    assert set(parameters_without_gradient(network)) <= inert
    with pytest.raises(ValueError, match=r"x: expected shape \[any, 3, any, any\]"):
        network(torch.rand(2, 1, 32, 32))


def test_discriminator_with_a_condition_needs_it() -> None:
    network = Discriminator(c_cond=5, c_hidden=16, depth=4)
    assert network(torch.rand(2, 3, 32, 32), torch.rand(2, 5)).shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match=r"cond: expected shape \[2, 5\], found none"):
        network(torch.rand(2, 3, 32, 32))


def test_previewer_is_eight_times_as_large_and_learns() -> None:
    network = Previewer(c_in=4, c_hidden=16)
    images = network(torch.randn(2, 4, 3, 5))
    assert images.shape == (2, 3, 24, 40)
    images.square().mean().backward()
    assert parameters_without_gradient(network) == []
    with pytest.raises(ValueError, match=r"latents: expected shape \[any, 4, any, any\]"):
        network(torch.randn(2, 3, 3, 5))


@pytest.mark.parametrize("size", [(32, 48), (33, 20)])
def test_compressor_of_own_stages(size: tuple[int, int]) -> None:
    network = SemanticCompressor(c_latent=6, backbone=STAGES, stochastic_depth=0.0)
    assert network.factor == 8
    latents = network(normalise_images(torch.rand(2, 3, *size)))
    assert latents.shape == (2, 6, -(-size[0] // 8), -(-size[1] // 8))
    (latents * torch.randn_like(latents)).sum().backward()
    assert parameters_without_gradient(network) == []


def test_compressor_latents_have_unit_variance_in_training() -> None:
    network = SemanticCompressor(c_latent=6, backbone=STAGES)
    latents = network(torch.randn(8, 3, 64, 64))
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), correction=0), torch.ones(6), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet", "backbone: expected efficientnet_v2_s or stages, found 'resnet'"),
        ({"stages": [["conv", 1, 3, 1, 8, 8, 1]], "c_last": 8}, "expected .fused.mbconv, expansion"),
        ({"stages": [[1, 2]], "c_last": 8}, "expected .fused.mbconv, expansion"),
        ({"stages": [["mbconv", 1, 3, 1, 8, 12, 1]], "c_last": 8}, "must be multiples of 8"),
        ({"stages": [["mbconv", 1, 3, 1, 8, "x", 1]], "c_last": 8}, "expected whole numbers"),
        ({"stagez": [], "c_last": 8}, "backbone.stagez: unknown key; did you mean 'stages'"),
        ({"stages": []}, "backbone.c_last: missing"),
        ({"stages": [], "c_last": "8"}, "backbone.c_last: expected a whole number"),
        (
            {"stages": [["mbconv", 1, 3, 1, 8, 8, 1]] + [["fused", 1, 3, 1, 16, 8, 1]], "c_last": 8},
            "c_in must be",
        ),
    ],
)
def test_malformed_backbones_are_named(backbone: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticCompressor(backbone=backbone)


def test_stochastic_depth_is_a_setting() -> None:
    def latents(chance: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = SemanticCompressor(backbone=STAGES, stochastic_depth=chance).train()
        images = torch.randn(4, 3, 32, 32)
        return [network(images) for _ in range(2)]

    torch.testing.assert_close(*latents(0.0))
    assert not torch.equal(*latents(0.9))


def test_normalised_images() -> None:
    grey = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].expand(1, 3, 2, 2)
    torch.testing.assert_close(normalise_images(grey), torch.zeros(1, 3, 2, 2))
    torch.testing.assert_close(
        normalise_images(torch.ones(1, 3, 1, 1))[0, 0, 0, 0], torch.tensor(0.515 / 0.229)
    )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("discriminator", {"c_hidden": 16, "depth": 4}),
        ("previewer", {"c_in": 3, "c_hidden": 16}),
        ("semantic_compressor", {"backbone": STAGES}),
    ],
)
def test_bfloat16(name: str, config: dict[str, Any]) -> None:
    network = modules.build(name, config).eval()
    x = torch.rand(2, 3, 32, 32)
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (network(x) - expected).std() < 0.1 * expected.std()
    assert (network.bfloat16()(x) - expected).std() < 0.1 * expected.std()


def test_backbone_from_torchvisions_file(tmp_path: Any) -> None:
    theirs = efficientnet_v2_s(weights=None).eval()
    file = tmp_path / "efficientnet_v2_s-dd5fe13b.pth"
    torch.save(theirs.state_dict(), file)
    network = load_network(file, "semantic_compressor", changes={"stochastic_depth": 0.0}).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network.backbone(x), theirs.features(x))
    torch.save({"features.0.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="not torchvision's efficientnet_v2_s"):
        load_network(file, "semantic_compressor")
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="not torchvision's efficientnet_v2_s"):
        load_network(file, "semantic_compressor")
