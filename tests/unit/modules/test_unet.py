from typing import Any

import pytest
import torch
from torch import nn

from modules import StageC

BOTH = pytest.mark.parametrize("name", ["stage_b", "stage_c"])


@BOTH
@pytest.mark.parametrize("switch", [False, True])
def test_gradient_flows_to_every_parameter(name: str, switch: bool, make: Any, inputs: Any) -> None:
    changes = {"switch_level": switch} if name == "stage_c" else {}
    network = make(name, **changes)
    given = inputs(name)
    if name == "stage_b":
        given["pixels"] = torch.randn(2, 3, 5, 4)
    network(**given).square().mean().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@BOTH
def test_fresh_network_predicts_zero_and_learns(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name, random=False), inputs(name)
    assert network(**given).abs().max() == 0
    target = torch.randn_like(given["x"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (network(**given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@BOTH
@pytest.mark.parametrize("size", [(16, 24), (13, 9), (7, 1), (1, 1)])
@pytest.mark.parametrize("switch", [False, True])
def test_any_latent_size(name: str, size: tuple[int, int], switch: bool, make: Any, inputs: Any) -> None:
    network = make(name, **({"switch_level": switch} if name == "stage_c" else {}))
    given = inputs(name, *size)
    found = network(**given)
    assert found.shape == given["x"].shape
    assert found.isfinite().all()


def test_padding_of_odd_sizes_is_cut_off_again(make: Any, inputs: Any) -> None:
    network, given = make("stage_b"), inputs("stage_b", 15, 23)
    padded = torch.nn.functional.pad(given["x"], (0, 1, 0, 1), mode="replicate")
    torch.testing.assert_close(network(**given), network(**{**given, "x": padded})[..., :15, :23])


@BOTH
def test_pure_bfloat16_agrees_with_float32(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name), inputs(name)
    expected = network(**given)
    found = network.bfloat16()(**given)
    assert found.dtype == torch.float32  # that of the latents
    assert (found - expected).std() < 0.1 * expected.std()
    found.square().mean().backward()
    assert all(
        parameter.grad.dtype == torch.bfloat16
        for parameter in network.parameters()
        if parameter.grad is not None
    )


@BOTH
def test_autocast_agrees_with_float32(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name), inputs(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(**given)
    expected = network(**given)
    assert (found - expected).std() < 0.1 * expected.std()


@BOTH
def test_pictures_do_not_depend_on_their_batch(name: str, make: Any, inputs: Any) -> None:
    network, given = make(name), inputs(name)
    alone = network(**{key: value[1:] for key, value in given.items()})
    torch.testing.assert_close(network(**given)[1:], alone, atol=1e-5, rtol=1e-4)


def test_repeats_run_a_level_again(make: Any, inputs: Any) -> None:
    once, given = make("stage_c", block_repeat=None), inputs("stage_c")
    twice = make("stage_c", block_repeat=[[1, 2], [1, 1]])
    calls = []
    twice.down_blocks[1][0].register_forward_hook(lambda *_: calls.append(1))
    twice(**given)
    assert len(calls) == 2
    assert len(twice.state_dict()) == len(once.state_dict()) + 2
    assert make("stage_c", block_repeat=[[1, 1], [1, 1]]).state_dict().keys() == once.state_dict().keys()


def test_companions_matter_and_default_to_zero(make: Any, inputs: Any) -> None:
    network, given = make("stage_c"), inputs("stage_c")
    plain = network(**given)
    torch.testing.assert_close(network(**given, sca=torch.zeros(2), crp=torch.zeros(2)), plain)
    assert not torch.allclose(network(**given, crp=torch.ones(2)), plain)


def test_a_companion_that_the_network_does_not_have_is_refused(make: Any, inputs: Any) -> None:
    network = make("stage_c", t_conds=["sca"])
    with pytest.raises(ValueError, match=r"crp: this network has the timestep conditions \['sca'\]"):
        network(**inputs("stage_c"), crp=torch.ones(2))


def test_controls_reach_convolution_blocks_in_running_order(make: Any, inputs: Any) -> None:
    network, given = make("stage_c", block_repeat=[[1, 2], [1, 1]]), inputs("stage_c")
    plain = network(**given)
    controls: list[Any] = [None] * 10
    assert torch.equal(network(**given, cnet=controls), plain)
    for place, c in ((0, 16), (4, 24), (7, 16)):  # first; second run of the repeated level; last
        controls = [None] * 8
        controls[place] = torch.randn(2, c, 2, 2)
        assert not torch.allclose(network(**given, cnet=controls), plain)
    controls = [None] * 8 + [torch.ones(2, 16, 2, 2)]  # one more than there are blocks
    assert torch.equal(network(**given, cnet=controls), plain)


def test_pooled_embeddings_may_lack_their_token_axis(make: Any, inputs: Any) -> None:
    network, given = make("stage_c"), inputs("stage_c")
    flat = {key: given[key][:, 0] for key in ("clip_text_pooled", "clip_img")}
    torch.testing.assert_close(network(**{**given, **flat}), network(**given))


def test_missing_pixels_are_black_pixels(make: Any, inputs: Any) -> None:
    network, given = make("stage_b"), inputs("stage_b")
    black = network(**given, pixels=torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(network(**given), black, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "key", "shape", "message"),
    [
        ("stage_b", "x", (2, 3, 8, 8), r"x: expected shape \[any, 4, any, any\], found \[2, 3, 8, 8\]"),
        ("stage_b", "r", (2, 1), r"r: expected shape \[2\], found \[2, 1\]"),
        ("stage_b", "effnet", (2, 5, 3, 3), r"effnet: expected shape \[any, 6, any, any\]"),
        ("stage_b", "clip", (2, 1, 9), r"clip: expected shape \[any, any, 12\], found \[2, 1, 9\]"),
        ("stage_b", "pixels", (2, 4, 9, 9), r"pixels: expected shape \[2, 3, any, any\]"),
        ("stage_c", "clip_text", (2, 4, 9), "clip_text: expected shape"),
        ("stage_c", "clip_img", (2, 9), r"clip_img: expected shape \[any, any, 7\], found \[2, 1, 9\]"),
    ],
)
def test_wrong_shapes_are_named(
    name: str, key: str, shape: tuple[int, ...], message: str, make: Any, inputs: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        make(name)(**{**inputs(name), key: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": [0.1]}, r"dropout: expected 2 values, one per level, found \[0.1\]"),
        ({"nhead": [2, 3, 4]}, "nhead: expected 2 values"),
        ({"blocks": [[1], [1, 1]]}, "blocks: expected 2 values"),
        ({"block_repeat": [[1, 1], [1]]}, "block_repeat: expected 2 values"),
        ({"level_config": ["CTA", "CXA"]}, "level_config: expected the letters C, T, A and F, found 'CXA"),
        ({"switch_level": [True, True]}, "switch_level: expected 1 values"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, Any], message: str, make: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make("stage_c", **changes)


@BOTH
def test_weights_built_on_meta_are_initialised_alike(name: str, make: Any) -> None:
    built = make(name, random=False)
    with torch.device("meta"):
        later = type(built)(**built.config)
    later.to_empty(device="cpu")
    for parameter in later.parameters():
        nn.init.constant_(parameter, torch.nan)
    later.init_weights()
    for (key, ours), theirs in zip(later.state_dict().items(), built.state_dict().values(), strict=True):
        if theirs.std() > 0:
            assert ours.std() / theirs.std() == pytest.approx(1, abs=0.35), key
        else:
            assert torch.equal(ours, theirs), key


def test_three_levels_take_the_default_dropout() -> None:
    network = StageC(c_hidden=[8, 8, 8], nhead=1, blocks=[[1] * 3] * 2, level_config=["C"] * 3, c_cond=8)
    assert [block.channelwise[3].p for block in network.shard_units()] == [0.1] * 6
