import pytest
import torch
from torch import Tensor, nn

from modules import StageA, vector_quantizer
from modules.stage_a import StageAResBlock
from modules.vector_quantizer import VectorQuantizer


@pytest.fixture
def stage_a() -> StageA:
    torch.manual_seed(0)
    network = StageA(c_hidden=16, bottleneck_blocks=2, codebook_size=32, scale_factor=0.5)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return network


def test_shapes_and_gradients(stage_a: StageA) -> None:
    images = torch.rand(2, 3, 16, 24)
    reconstruction, code = stage_a(images)
    assert reconstruction.shape == images.shape
    assert code.latents.shape == code.unquantized.shape == (2, 4, 4, 6)
    assert code.indices.shape == (2, 4, 6)
    loss = (reconstruction - images).square().mean() + code.codebook_loss + code.commitment_loss
    loss.backward()
    without = [n for n, p in stage_a.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_without_gradients_numbers_are_the_same(stage_a: StageA) -> None:
    images = torch.rand(2, 3, 16, 24)
    expected = stage_a.eval()(images)[0]
    with torch.no_grad():
        torch.testing.assert_close(stage_a(images)[0], expected, atol=1e-6, rtol=1e-6)


def test_channels_lie_side_by_side_all_the_way(stage_a: StageA) -> None:
    """Else every norm and every mixing of channels copies the features, there and back."""
    seen: list[bool] = []

    def note(block: nn.Module, given: tuple[Tensor]) -> None:
        seen.append(given[0].is_contiguous(memory_format=torch.channels_last))

    for block in stage_a.modules():
        if isinstance(block, StageAResBlock):
            block.register_forward_pre_hook(note)
    stage_a.eval().encode(torch.rand(2, 3, 16, 24))
    stage_a.decode(torch.rand(2, 4, 4, 6))
    assert seen == [True] * len(stage_a.shard_units())


def test_latents_are_scaled_codes(stage_a: StageA) -> None:
    images = torch.rand(1, 3, 8, 8)
    code = stage_a.eval().encode(images)
    torch.testing.assert_close(code.latents * 0.5, stage_a.vquantizer.lookup(code.indices))
    torch.testing.assert_close(code.unquantized, stage_a.encode_unquantized(images))


def test_pictures_may_be_decoded_from_unquantized_latents(stage_a: StageA) -> None:
    images = torch.rand(2, 3, 8, 8)
    stage_a.eval()
    mixed, code = stage_a(images, torch.tensor([True, False]))
    torch.testing.assert_close(mixed[:1], stage_a.decode(code.latents[:1]))
    torch.testing.assert_close(mixed[1:], stage_a.decode(code.unquantized[1:]))


def test_sides_that_the_factor_does_not_divide_are_refused(stage_a: StageA) -> None:
    with pytest.raises(ValueError, match="multiples of 4, found 8 x 10; pad or crop"):
        stage_a.encode(torch.rand(1, 3, 8, 10))
    with pytest.raises(ValueError, match=r"images: expected shape \[any, 3, any, any\]"):
        stage_a.encode(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="latents: expected shape"):
        stage_a.decode(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize("levels", [1, 3])
def test_factor_follows_the_levels(levels: int) -> None:
    network = StageA(levels=levels, c_hidden=16, bottleneck_blocks=1, codebook_size=8)
    assert network.factor == 2**levels
    images = torch.rand(1, 3, 16, 8)
    assert network(images)[0].shape == images.shape
    assert network.encode(images).latents.shape[-2:] == (16 // network.factor, 8 // network.factor)


def test_quantized_gradient_passes_straight_through() -> None:
    quantizer = VectorQuantizer(4, 8)
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    weights = torch.randn(1, 4, 2, 2)
    (quantizer(latents).codes * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    assert quantizer.codebook.weight.grad is None


def test_losses_pull_codes_and_latents_together() -> None:
    quantizer = VectorQuantizer(4, 8)
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    found = quantizer(latents)
    distance = (quantizer.lookup(found.indices) - latents).square().mean()
    torch.testing.assert_close(found.codebook_loss, distance)
    torch.testing.assert_close(found.commitment_loss, distance)
    found.codebook_loss.backward()
    assert latents.grad is None
    used = torch.zeros(8, dtype=torch.bool)
    used[found.indices.unique()] = True
    assert (quantizer.codebook.weight.grad.abs().sum(dim=1) > 0).equal(used)
    quantizer(latents).commitment_loss.backward()
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize("limit", [1, 70, 2**24])
def test_nearest_codes_whatever_the_memory(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_quantizer, "MAX_DISTANCES", limit)
    quantizer = VectorQuantizer(3, 32)
    torch.nn.init.normal_(quantizer.codebook.weight)
    latents = torch.randn(2, 3, 4, 5)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 1, 3)
    nearest = (rows - quantizer.codebook.weight).square().sum(dim=-1).argmin(dim=1).view(2, 4, 5)
    assert quantizer.nearest(latents).equal(nearest)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer.nearest(latents).equal(nearest)


def test_fresh_network_learns_to_reconstruct() -> None:
    torch.manual_seed(0)
    network = StageA(c_hidden=16, bottleneck_blocks=1, codebook_size=32)
    images = torch.rand(4, 3, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        reconstruction, code = network(images, torch.zeros(4, dtype=torch.bool))
        loss = (reconstruction - images).square().mean()
        optimizer.zero_grad()
        (loss + code.codebook_loss + 0.25 * code.commitment_loss).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_bfloat16(stage_a: StageA) -> None:
    images = torch.rand(2, 3, 8, 8)
    expected = stage_a.eval()(images, torch.zeros(2, dtype=torch.bool))[0]
    found = stage_a.bfloat16()(images, torch.zeros(2, dtype=torch.bool))[0]
    assert (found - expected).std() < 0.1 * expected.std()
    assert stage_a(images)[0].isfinite().all()
