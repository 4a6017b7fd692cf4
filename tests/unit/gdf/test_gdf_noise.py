"""Laws of random numbers and noise."""

import pytest
import torch

import gdf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("draw", [gdf.rand, gdf.randn, gdf.offset_noise, gdf.pyramid_noise])
def test_a_row_depends_on_its_own_generator_only(draw):
    whole = draw((3, 2, 7, 5), [generator(seed) for seed in (4, 5, 6)])
    alone = draw((1, 2, 7, 5), [generator(5)])
    assert torch.equal(whole[1], alone[0])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("draw", [gdf.rand, gdf.randn, gdf.pyramid_noise])
def test_the_dtype_changes_only_the_rounding(draw):
    single = draw((2, 3, 4, 4), generator())
    assert single.dtype == torch.float32
    torch.testing.assert_close(
        draw((2, 3, 4, 4), generator(), dtype=torch.float64), single.double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        draw((2, 3, 4, 4), generator(), dtype=torch.bfloat16), single.bfloat16(), atol=0.05, rtol=0
    )


def test_the_global_generator_is_neither_read_nor_moved():
    before = torch.random.get_rng_state()
    gdf.pyramid_noise((1, 1, 8, 8), generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_clear_errors():
    with pytest.raises(ValueError, match="generators"):
        gdf.randn((2, 3), None)
    with pytest.raises(ValueError, match="3 given for a batch of 2"):
        gdf.randn((2, 3), [generator()] * 3)


def test_uniform_and_normal():
    uniform, normal = gdf.rand((1, 40000), generator()), gdf.randn((1, 40000), generator())
    assert uniform.min() >= 0 and uniform.max() < 1 and uniform.mean().item() == pytest.approx(0.5, abs=0.02)
    assert normal.std().item() == pytest.approx(1, abs=0.02) and normal.mean().item() == pytest.approx(
        0, abs=0.02
    )


def test_offset_noise_is_constant_over_a_channel():
    assert gdf.offset_noise((4, 3, 8, 6), generator()).shape == (4, 3, 1, 1)


@pytest.mark.parametrize(
    "options", [{}, {"size_range": (1, 16)}, {"levels": 3, "decay": 0.5}, {"square_levels": True}]
)
def test_every_value_of_pyramid_noise_has_unit_variance(options):
    noise = gdf.pyramid_noise((4000, 1, 12, 20), generator(), **options)
    torch.testing.assert_close(noise.var(0), torch.ones(1, 12, 20), atol=0.15, rtol=0)


def sizes(shape: tuple[int, ...], **options) -> list[tuple[int, ...]]:
    """The sizes of the levels that pyramid noise draws."""
    drawn = []

    def source(shape: tuple[int, ...]) -> torch.Tensor:
        drawn.append(shape[-2:])
        return torch.zeros(shape)

    gdf.pyramid_noise(shape, source, **options)
    return drawn


def test_pyramid_levels():
    assert sizes((1, 1, 24, 40)) == [(24, 40), (12, 20), (6, 10), (3, 5), (1, 2)]
    assert sizes((1, 1, 24, 40), size_range=(1, 5)) == [(24, 40), (3, 5), (1, 2)]
    assert sizes((1, 1, 24, 40), levels=2) == [(24, 40), (12, 20)]
    assert sizes((1, 1, 24, 40), square_levels=True) == [(24, 40), (12, 12), (6, 6), (3, 3), (1, 1)]
    assert sizes((1, 1, 1, 8)) == [(1, 8)]


def test_pyramid_noise_is_correlated_between_neighbours():
    noise = gdf.pyramid_noise((4000, 1, 8, 8), generator())
    assert (noise[..., 0, 0] * noise[..., 0, 1]).mean() > 0.3
