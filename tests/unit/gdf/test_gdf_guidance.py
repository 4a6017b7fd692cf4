"""Laws of classifier-free guidance and of the inputs for a doubled batch."""

import pytest
import torch

from gdf.guidance import Guidance, with_unconditional


def predictions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 5, 5, generator=generator), torch.randn(3, 2, 5, 5, generator=generator)


def test_scale_1_is_the_conditional_and_scale_0_the_unconditional_prediction():
    conditional, unconditional = predictions()
    guidance = Guidance(cfg_rho=0)
    torch.testing.assert_close(guidance.combine(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guidance.combine(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(Guidance().combine(conditional, unconditional, 1.0), conditional)


def test_full_rescaling_keeps_the_deviation_of_the_conditional_prediction():
    conditional, unconditional = predictions()
    guided = Guidance(cfg_rho=1).combine(conditional, unconditional, 7.0)
    torch.testing.assert_close(guided.std((1, 2, 3)), conditional.std((1, 2, 3)))
    whole = Guidance(cfg_rho=1, cfg_rescale_whole_batch=True).combine(conditional, unconditional, 7.0)
    torch.testing.assert_close(whole.std(), conditional.std())


def test_a_picture_does_not_depend_on_its_neighbours_unless_asked():
    conditional, unconditional = predictions()
    for whole_batch in (False, True):
        guidance = Guidance(cfg_rescale_whole_batch=whole_batch)
        together = guidance.combine(conditional, unconditional, 4.0)[:1]
        alone = guidance.combine(conditional[:1], unconditional[:1], 4.0)
        assert torch.equal(together, alone) != whole_batch


def test_a_range_goes_linearly_from_the_noisy_to_the_clean_end():
    guidance = Guidance(cfg=[6.0, 2.0])
    assert [guidance.scale(t) for t in (1.0, 0.5, 0.0)] == [6.0, 4.0, 2.0]
    assert Guidance(cfg=None).scale(0.5) is None


def test_guided_are_the_times_between_stop_and_start():
    guidance = Guidance(cfg_t_stop=0.3, cfg_t_start=0.8)
    times = torch.linspace(1, 0, 11).tolist()  # in float32, where 0.8 is 0.80000001
    assert [guidance.scale(t) is not None for t in times] == [False] * 2 + [True] * 6 + [False] * 3


def test_inputs_are_paired_by_name_and_missing_ones_are_zeros():
    one, two = torch.ones(2, 3), torch.full((2, 3), 2.0)
    inputs = {
        "a": one,
        "b": two,
        "more": {"x": one, "y": two},
        "several": [one, two],
        "flag": True,
        "none": None,
    }
    other = {"b": -two, "a": -one, "more": {"y": -two}, "several": [-one]}
    doubled = with_unconditional(inputs, other)
    zeros = torch.zeros(2, 3)
    assert torch.equal(doubled["a"], torch.cat([one, -one])) and torch.equal(
        doubled["b"], torch.cat([two, -two])
    )
    assert torch.equal(doubled["more"]["x"], torch.cat([one, zeros]))
    assert torch.equal(doubled["more"]["y"], torch.cat([two, -two]))
    assert torch.equal(doubled["several"][0], torch.cat([one, -one]))
    assert torch.equal(doubled["several"][1], torch.cat([two, zeros]))
    assert doubled["flag"] is True and doubled["none"] is None
    assert torch.equal(with_unconditional({"a": one}, None)["a"], torch.cat([one, zeros]))


def test_an_unconditional_input_that_the_model_does_not_get_is_an_error():
    with pytest.raises(
        ValueError, match=r"unconditional_inputs\.more: 'z' is not among the model inputs \(x\)"
    ):
        with_unconditional({"more": {"x": torch.ones(1)}}, {"more": {"z": torch.ones(1)}})
