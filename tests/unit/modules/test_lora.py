"""LoRA beside the layers of real networks: what it changes, and that it leaves no trace."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modules.adapters.lora import LoRA
from modules.encoders import TextEncoder
from tests.unit.modules.lora_cases import DORA, merged, trained

Run = Callable[..., Tensor]


@pytest.fixture
def run(network: Any, inputs: Any) -> Run:
    given = inputs(type(network).__name__.replace("Stage", "stage_").lower())
    return lambda other=network: other(**given)


@pytest.mark.parametrize("dora", DORA)
def test_a_fresh_one_changes_nothing(network: Any, run: Run, dora: Any) -> None:
    before = run()
    LoRA.create(network, {"*": 4}, alpha=16, dora=dora).attach(network)
    torch.testing.assert_close(run(), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dora", DORA)
def test_attached_equals_merged(network: Any, run: Run, dora: Any) -> None:
    lora, before = trained(network, alpha=2, dora=dora), run()
    expected = run(merged(network, lora, weight=0.4))
    lora.attach(network, weight=0.4)
    assert (run() - before).abs().max() > 0.05
    torch.testing.assert_close(run(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dora", DORA)
def test_weight_0_and_detaching_leave_no_trace(network: Any, run: Run, dora: Any) -> None:
    before, names = run(), list(network.state_dict())
    lora = trained(network, dora=dora)
    lora.attach(network)
    lora.weight = 0
    assert torch.equal(run(), before)
    lora.weight = 1
    assert not torch.equal(run(), before)
    lora.detach()
    assert torch.equal(run(), before) and list(network.state_dict()) == names


def test_several_add_up_in_any_order(network: Any, run: Run) -> None:
    first, second = trained(network), trained(network, {"*.channelwise.*": 2}, seed=4)
    expected = run(merged(network, first, second))
    alone = run(merged(network, second))
    first.attach(network)
    second.attach(network)
    torch.testing.assert_close(run(), expected, atol=1e-4, rtol=1e-4)
    first.detach()
    torch.testing.assert_close(run(), alone, atol=1e-4, rtol=1e-4)
    first.attach(network)
    torch.testing.assert_close(run(), expected, atol=1e-4, rtol=1e-4)


def test_one_is_attached_once(network: Any) -> None:
    lora = trained(network)
    lora.attach(network)
    with pytest.raises(ValueError, match="detach it first"):
        lora.attach(network)


def test_another_networks_is_refused_before_anything_happens(make: Any) -> None:
    network, other = make("stage_c").requires_grad_(False), make("stage_c", c_cond=8)
    lora = trained(other, {"*.to_q": 2, "*.kv_mapper.*": 2})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for use in (lora.attach, lora.merge):
        with pytest.raises(ValueError, match=r"kv_mapper.1: expected factors of a weight \[16, 16\]"):
            use(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_dropout_drops_in_training_only(make: Any, inputs: Any) -> None:
    network, given = make("stage_c").eval(), inputs("stage_c")
    lora = trained(network, dropout=0.5)
    lora.attach(network)
    assert not torch.equal(network(**given), network(**given))
    lora.eval()
    assert torch.equal(network(**given), network(**given))


def test_learns_in_float32_beside_a_base_in_bfloat16(network: Any, run: Run) -> None:
    network.to(torch.bfloat16)
    before, lora = run(), trained(network)
    lora.attach(network)
    assert {parameter.dtype for parameter in lora.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        output = run()
    output.float().square().mean().backward()
    assert output.dtype == before.dtype and not torch.equal(output, before)
    without = {name for name, p in lora.named_parameters() if p.grad is None or not p.grad.any()}
    assert not [name for name in without if "pixels_mapper" not in name]  # no picture was given


def test_recomputed_blocks_give_the_same_gradients(network: Any, run: Run) -> None:
    lora = trained(network)
    lora.attach(network)
    run().square().mean().backward()
    expected = [parameter.grad for parameter in lora.parameters()]
    lora.zero_grad()
    for unit in network.shard_units():
        unit.forward = partial(checkpoint, unit.forward, use_reentrant=False)
    run().square().mean().backward()
    for parameter, gradient in zip(lora.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_text_encoder_can_have_one() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = TextEncoder(config={**sizes, "projection_dim": 8}, words=["a", "red"], max_length=8)
    before = encoder(["a red"]).tokens
    lora = trained(encoder.model, {"*_proj": 2, "*.fc1": 4}, part="text_encoder")
    assert "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.alpha" in lora.state_dict()
    again = LoRA.from_state(lora.to_state({}), encoder.model, part="text_encoder")
    again.attach(encoder.model)
    assert not torch.equal(encoder(["a red"]).tokens, before)
    again.detach()
    assert torch.equal(encoder(["a red"]).tokens, before)


def test_blocks_compile_as_a_whole(make: Any, inputs: Any) -> None:
    network, given = make("stage_c").eval().requires_grad_(False), inputs("stage_c")
    trained(network).attach(network)
    trained(network, {"*.to_q": 4}, dora=True).attach(network)
    expected = network(**given)
    for unit in network.shard_units()[:3]:  # one of each kind
        unit.forward = torch.compile(unit.forward, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(network(**given), expected, atol=1e-5, rtol=1e-5)
