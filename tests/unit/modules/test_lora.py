"""LoRA beside the layers of real networks: what it changes, and that it leaves no trace."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modules.adapters.layers import adaptable_layers
from modules.adapters.lora import LoRA
from modules.adapters.lora_layer import norms
from modules.adapters.lora_state import Factors, LoRAState
from modules.adapters.low_rank import leading_values
from modules.adapters.magnitudes import with_original_norms
from modules.attention import PackedLinear
from modules.encoders import TextEncoder
from modules.weights import read_header, read_tensors, save_network

NETWORKS = ("stage_c", "stage_b")
DORA = (False, "output", "input")
EVERYWHERE = {"*": 4, "*.depthwise": 2, "*.to_v": 3}
Run = Callable[..., Tensor]


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, make: Any) -> Any:
    return make(request.param).eval().requires_grad_(False)


@pytest.fixture
def run(network: Any, inputs: Any) -> Run:
    given = inputs(type(network).__name__.replace("Stage", "stage_").lower())
    return lambda other=network: other(**given)


def trained(network: nn.Module, layers: Any = EVERYWHERE, seed: int = 3, **settings: Any) -> LoRA:
    """A LoRA whose every parameter has moved from where it starts."""
    lora = LoRA.create(network, layers, **settings)
    rng = torch.Generator().manual_seed(seed)
    for parameter in lora.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return lora


def merged(network: Any, *loras: LoRA, weight: float = 1.0) -> Any:
    """A copy with the LoRAs in its weights."""
    copy = type(network)(**network.config).eval()
    copy.load_state_dict(network.state_dict())
    for lora in loras:
        lora.merge(copy, weight)
    return copy


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


def test_every_kind_of_layer_is_chosen(network: Any) -> None:
    chosen = set(LoRA.create(network, {"*": 1}).layers)
    kinds = nn.Linear | nn.Conv2d | PackedLinear
    assert chosen == {name for name, module in network.named_modules() if isinstance(module, kinds)}
    assert any(name.endswith("attn.to_k") for name in chosen)


def test_the_last_pattern_that_matches_gives_the_rank(make: Any) -> None:
    lora = LoRA.create(make("stage_c"), {"*.attn.*": 8, "up_blocks.*": 2, "*.to_k": 0})
    ranks = {name: layer.rank for name, layer in lora.layers.items()}
    assert ranks["down_blocks.0.2.attention.attn.to_q"] == 8
    assert ranks["up_blocks.0.2.attention.attn.to_q"] == 2
    assert not [name for name in ranks if name.endswith("to_k")]
    assert not [name for name in ranks if name.startswith("down_blocks") and ".attn." not in name]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"*.atn.to_q": 4}, "matches no layer; did you mean 'attn.to_q'"),
        ({"*": 4, "clip_text_mapper": 2}, "did you mean 'clip_txt_mapper'"),
        ({"*": -1}, "at least 0"),
        ({"*": 0}, "choose no layer"),
    ],
)
def test_wrong_patterns_are_named(make: Any, layers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRA.create(make("stage_c"), layers)


def test_the_change_is_scaled_by_alpha_over_rank(make: Any) -> None:
    network = make("stage_c")
    layer = trained(network, {"clip_txt_mapper": 4}, alpha=6).layers["clip_txt_mapper"]
    product = layer.lora_up.weight @ layer.lora_down.weight
    torch.testing.assert_close(layer.change(network.clip_txt_mapper.weight), product * 1.5)


@pytest.mark.parametrize("axis", [0, 1])
def test_magnitudes_are_the_norms_of_what_comes_out(network: Any, axis: int) -> None:
    """Liu et al. 2024, equation 5: the merged weight's norms along the axis are the magnitudes."""
    lora = trained(network, dora=DORA[1 + axis])
    whole = adaptable_layers(merged(network, lora))
    for name, layer in lora.layers.items():
        magnitude = layer.dora_scale
        assert magnitude is not None
        found = norms(whole[name].weight, magnitude.shape)  # type: ignore[arg-type]
        torch.testing.assert_close(found, magnitude.abs().detach(), atol=1e-4, rtol=1e-4)


def test_the_norm_is_a_constant_to_the_gradient(make: Any) -> None:
    """The paper's equation 11: without its norm's part, the gradient is that of the weight, scaled."""
    network = make("stage_c").requires_grad_(False)
    layer = trained(network, {"clip_txt_mapper": 4}, dora=True).layers["clip_txt_mapper"]
    weight = network.clip_txt_mapper.weight
    layer.change(weight).sum().backward()
    patched = weight + layer.lora_up.weight.detach() @ layer.lora_down.weight.detach()
    scaled = layer.dora_scale.detach() / patched.norm(dim=1, keepdim=True)
    expected = scaled * layer.lora_down.weight.detach().sum(1)
    torch.testing.assert_close(layer.lora_up.weight.grad, expected)


def test_comfyui_gets_magnitudes_for_its_own_norms(make: Any) -> None:
    """It divides by the norms of the weight as it was; the rescaled magnitudes give the same change there."""
    network = make("stage_c").requires_grad_(False)
    state = trained(network, {"*.channelwise.*": 4}, dora=True).to_state({})
    theirs = with_original_norms(state, network)
    name = "down_blocks.0.0.channelwise.0"
    weight, factors = network.get_submodule(name).weight, theirs.parts["unet"][name]
    comfyui = (weight + factors.up @ factors.down) * (factors.dora_scale / weight.norm(dim=1, keepdim=True))
    ours = LoRA.from_state(state, network).layers[name].change(weight)
    torch.testing.assert_close(comfyui - weight, ours, atol=1e-5, rtol=1e-4)
    again = LoRA.from_state(theirs, network).layers[name].change(weight)
    torch.testing.assert_close(again, ours, atol=1e-5, rtol=1e-4)


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


def test_the_base_holds_the_layers_that_learn(network: Any) -> None:
    lora = LoRA.create(network, {"*": 2})
    lora.attach(network)
    learning = {id(p) for p in network.parameters() if p.requires_grad}
    assert learning == {id(p) for p in lora.parameters()}
    assert set(adaptable_layers(network)) == set(lora.layers)  # and nothing of the LoRA's own


@pytest.mark.parametrize("energy", [1.0, 0.9])
def test_extraction_finds_what_was_merged(network: Any, energy: float) -> None:
    lora = trained(network, {"*": 3})
    tuned = merged(network, lora)
    found = LoRA.extract(network, tuned, rank=3, energy=energy)
    again = adaptable_layers(merged(network, found))
    for name, layer in adaptable_layers(tuned).items():
        change = layer.weight - network.get_submodule(name).weight
        missing = (layer.weight - again[name].weight).square().sum() / change.square().sum()
        assert missing < max(1 - energy, 1e-6) + 1e-6, name
    ranks = [layer.rank for layer in found.layers.values()]
    assert max(ranks) <= 3 and (min(ranks) < 3) == (energy < 1)


def test_extraction_takes_the_nearest_of_a_rank(make: Any) -> None:
    base, tuned = make("stage_c").requires_grad_(False), make("stage_c", random=False).requires_grad_(False)
    difference = tuned.clip_txt_mapper.weight - base.clip_txt_mapper.weight
    found = LoRA.extract(base, tuned, rank={"clip_txt_mapper": 2, "*.depthwise": 1})
    left = difference - found.layers["clip_txt_mapper"].change(base.clip_txt_mapper.weight)
    values = torch.linalg.svdvals(difference)
    torch.testing.assert_close(left.norm(), values[2:].norm(), atol=1e-4, rtol=1e-4)
    assert {name.split(".")[-1] for name in found.layers} == {"clip_txt_mapper", "depthwise"}


def test_a_sketch_of_a_large_difference_holds_as_much_as_can_be_held() -> None:
    torch.manual_seed(0)
    spread = torch.arange(1, 401) ** -0.5
    matrix = torch.randn(600, 400) * spread
    left, values, right = leading_values(matrix, 8)
    assert len(values) < 400 and torch.equal(leading_values(matrix, 8)[1], values)
    left_over = matrix - left[:, :8] * values[:8] @ right[:8]
    best = torch.linalg.svdvals(matrix)[8:].norm()
    assert left_over.norm() < 1.002 * best


def test_extraction_says_what_is_wrong(make: Any) -> None:
    network = make("stage_c")
    with pytest.raises(ValueError, match="do not differ"):
        LoRA.extract(network, network, rank=2)
    with pytest.raises(ValueError, match="weights of shapes"):
        LoRA.extract(network, make("stage_c", c_clip_text=8), rank=2)
    with pytest.raises(ValueError, match="energy: expected a share"):
        LoRA.extract(network, make("stage_c", random=False), rank=2, energy=0)


@pytest.mark.parametrize("dora", DORA)
def test_config_and_file_make_it_again(network: Any, dora: Any, tmp_path: Any) -> None:
    lora = trained(network, alpha=2, dropout=0.25, dora=dora)
    json.dumps(lora.config)
    save_network(tmp_path / "lora.safetensors", lora, "lora", {"base": {"network": "stage_c"}})
    again = LoRA(**read_header(tmp_path / "lora.safetensors")["config"])
    again.load_state_dict(read_tensors(tmp_path / "lora.safetensors"))
    for name, layer in lora.layers.items():
        for one, other in zip(layer.factors(), again.layers[name].factors(), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)
    assert {type(layer.dropout) for layer in again.layers.values()} == {nn.Dropout}


def test_weights_come_back_after_being_without_storage(make: Any) -> None:
    lora = LoRA.create(make("stage_c"), {"*": 2}, alpha=3)
    lora.to_empty(device="cpu")
    lora.init_weights()
    for layer in lora.layers.values():
        assert not layer.lora_up.weight.any() and layer.lora_down.weight.any() and layer.alpha == 3


def test_a_state_that_does_not_fit_is_refused(make: Any) -> None:
    network = make("stage_c")
    state = LoRA.create(network, {"*.kv_mapper.*": 2}).to_state({})
    other = make("stage_c", c_cond=8)
    with pytest.raises(ValueError, match=r"kv_mapper.1: expected factors of a weight \[16, 8\]"):
        LoRA.from_state(state, other)
    name, factors = state.parts["unet"].popitem()
    state.parts["unet"][name] = factors._replace(dora_scale=torch.ones(5, 1))
    with pytest.raises(ValueError, match=r"expected magnitudes of a weight .* found \[5, 1\]"):
        LoRA.from_state(state, network)
    del state.parts["unet"][name]
    state.parts["unet"]["down_blocks.0.2.kv_maper.1"] = factors
    with pytest.raises(ValueError, match="did you mean 'down_blocks.0.2.kv_mapper.1'"):
        LoRA.from_state(state, network)
    with pytest.raises(ValueError, match="changes no layer of the text encoder"):
        LoRA.from_state(LoRAState(), network, part="text_encoder")


def test_a_missing_alpha_is_the_rank_also_where_the_factors_number_format_lacks_it() -> None:
    network = nn.Sequential(nn.Linear(600, 600))
    state = LoRAState()
    factors = torch.zeros(257, 600, dtype=torch.bfloat16)
    state.parts["unet"]["0"] = Factors(factors, factors.t().contiguous())
    assert float(LoRA.from_state(state, network).layers["0"].scale) == 1.0


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
