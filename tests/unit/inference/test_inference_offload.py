"""Weights that wait elsewhere: where they are while networks compute, and that nothing else changes."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inference import Cascade, StageSettings
from inference.offload import Blocks, Offloaded
from modules import StageC, build
from modules.weights.lazy import lazy_state
from tests.conftest import NETWORKS, random_network

CPU = torch.device("cpu")
FAST = {"stage_c": StageSettings(steps=2), "stage_b": StageSettings(steps=2)}


def make(name: str = "stage_c", **changes: Any) -> nn.Module:
    network = random_network(build, name, {**NETWORKS[name][1], **changes}, seed=0)
    return network.eval().requires_grad_(False)


def present(network: nn.Module, offloaded: Offloaded) -> set[str]:
    """Names of the weights that are not where they wait."""
    homes = (offloaded.rest, *offloaded.homes)
    waiting = {tensor.data_ptr() for home in homes for tensor in home.absent.values()}
    return {name for name, tensor in network.state_dict().items() if tensor.data_ptr() not in waiting}


def inputs() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(0)
    return {
        "x": torch.randn(2, 16, 6, 5, generator=noise),
        "r": torch.rand(2, generator=noise),
        "clip_text": torch.randn(2, 7, 16, generator=noise),
        "clip_text_pooled": torch.randn(2, 1, 12, generator=noise),
        "clip_img": torch.randn(2, 1, 12, generator=noise),
    }


@pytest.fixture(params=[True, False], ids=["in files", "in memory"])
def in_files(request: pytest.FixtureRequest) -> Iterator[bool]:
    yield request.param


def test_by_stage_weights_are_there_while_lent(in_files: bool) -> None:
    network = make()
    expected = network(**inputs())
    offloaded = Offloaded(network, lazy_state(make().state_dict()), CPU, in_files=in_files)
    assert not present(network, offloaded)
    with offloaded.lent():
        assert present(network, offloaded) == network.state_dict().keys()
        with offloaded.lent():
            pass
        assert torch.equal(network(**inputs()), expected)
    assert not present(network, offloaded)


def test_by_block_only_the_one_that_computes_is_there(in_files: bool) -> None:
    network = make()
    expected = network(**inputs())
    units = network.units_to_wait()
    prefixes = {module: name + "." for name, module in network.named_modules()}
    own = {unit: {key for key in network.state_dict() if key.startswith(prefixes[unit])} for unit in units}
    rest = network.state_dict().keys() - set().union(*own.values())
    offloaded = Offloaded(network, lazy_state(make().state_dict()), CPU, in_files=in_files, units=units)
    seen: list[nn.Module] = []

    def look(unit: nn.Module) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            assert present(network, offloaded) == rest | own[unit]
            seen.append(unit)

        return hook

    with offloaded.lent():
        for unit in units:
            for layer in unit.modules():
                if layer is not unit and not list(layer.children()):
                    layer.register_forward_hook(look(unit))
        assert present(network, offloaded) == rest
        assert torch.equal(network(**inputs()), expected)
        assert list(dict.fromkeys(seen)) == units
    assert not present(network, offloaded)
    assert not any(unit._forward_pre_hooks or unit._forward_hooks for unit in units)


def test_by_block_timesteps_are_mapped_as_they_are_without(in_files: bool) -> None:
    """As one product: one by one they would have other last bits on some processors."""
    network, timestep = make(), torch.randn(2, 3 * NETWORKS["stage_c"][1]["c_r"])
    expected = [*network.map_timesteps()(timestep).values()]
    state = lazy_state(make().state_dict())
    offloaded = Offloaded(network, state, CPU, in_files=in_files, units=network.units_to_wait())
    with offloaded.lent():
        found = [*network.map_timesteps()(timestep).values()]
    assert expected and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_after_an_error_in_a_block_all_weights_are_away_again(in_files: bool) -> None:
    network = make()
    units = network.units_to_wait()
    offloaded = Offloaded(network, lazy_state(make().state_dict()), CPU, in_files=in_files, units=units)
    with pytest.raises(ValueError, match="clip_text"), offloaded.lent():
        network(**{**inputs(), "clip_text": torch.zeros(2, 7, 3)})
    broken = {**inputs(), "cnet": [torch.zeros(2, 3, 6, 5)]}  # of too many channels, found in the first block
    with pytest.raises(RuntimeError), offloaded.lent():
        network(**broken)
    assert not present(network, offloaded)
    with offloaded.lent():
        assert torch.equal(network(**inputs()), make()(**inputs()))


def test_weights_that_are_away_are_not_computed_with_unnoticed() -> None:
    network = make()
    offloaded = Offloaded(network, lazy_state(make().state_dict()), CPU, in_files=True)
    assert network(**inputs()).isnan().all()
    bytes_held = sum(t.untyped_storage().nbytes() for t in offloaded.rest.absent.values())
    assert bytes_held <= 4 * len(network.state_dict())


class TakenDown:
    """In the place of the buffers on a GPU, which there is not: what is asked of them, in order."""

    def __init__(self, owner: Offloaded) -> None:
        self.owner, self.started, self.taken = owner, [], []

    def start(self, number: int) -> None:
        self.started.append(number)

    def take(self, number: int) -> Tensor:
        self.taken.append(number)
        return self.owner.homes[number].buffer.clone()

    def done(self) -> None:
        pass


def test_the_next_block_is_foretold_from_the_second_pass_on() -> None:
    """Also where blocks are run several times over, as in Stage B."""
    config = {"blocks": [[1, 2], [2, 1]], "block_repeat": [[1, 2], [3, 1]], "level_config": ["CT", "CTA"]}
    network = make("stage_b", **config)
    given = inputs()
    conditions = {"effnet": torch.randn(2, 16, 3, 3), "clip": given["clip_text_pooled"]}
    run = {"x": torch.randn(2, 4, 12, 12), "r": given["r"], **conditions}
    expected = network(**run)
    state = lazy_state(make("stage_b", **config).state_dict())
    offloaded = Offloaded(network, state, CPU, in_files=False, units=network.units_to_wait())
    blocks, buffers = Blocks(offloaded), TakenDown(offloaded)
    offloaded._put(offloaded.rest.fetch(CPU))
    with blocks.running():
        blocks._buffers = buffers  # type: ignore[assignment]
        for _ in range(3):
            assert torch.equal(network(**run), expected)
    length = len(buffers.taken) // 3
    assert length > len(offloaded.units)  # some ran several times
    guessed, came = buffers.started[:-1], buffers.taken[1:]
    assert guessed[length:] == came[length:]
    assert guessed[:length] != came[:length]  # repeats are not known before


@pytest.mark.parametrize("offload", ["stage", "block"])
def test_pictures_are_the_same_to_the_last_bit(tiny_runs: Path, cascade: Cascade, offload: Any) -> None:
    lean = Cascade.load(str(tiny_runs), device="cpu", offload=offload)
    expected = cascade.generate(["a red circle", "a"], [1, 2], batch_size=2, **FAST)
    drawn = lean.generate(["a red circle", "a"], [1, 2], batch_size=2, **FAST)
    for one, other in zip(expected, drawn, strict=True):
        assert np.array_equal(np.asarray(one.image), np.asarray(other.image))
    for name in ("stage_c", "stage_b", "stage_a"):
        network = lean.networks.peek(name)
        offloaded = lean.networks._offloaded[network]
        assert not present(network, offloaded)
        by_block = offload == "block" and name != "stage_a"
        assert offloaded.units == (network.units_to_wait() if by_block else [])
    encoder = lean.networks.peek_encoder("text_encoder", "stage_c")
    assert not present(encoder, lean.networks._offloaded[encoder])


@pytest.mark.parametrize("offload", ["none", "stage"])
def test_encoders_are_read_in_the_number_format_of_the_networks(tiny_runs: Path, offload: Any) -> None:
    load = partial(Cascade.load, str(tiny_runs), device="cpu", image_encoder=str(tiny_runs / "image_encoder"))
    full, half = load(), load(dtype="bf16", offload=offload)
    for name in ("text_encoder", "image_encoder"):
        encoder = half.networks.peek_encoder(name, "stage_c")
        with half.networks.lend(encoder):
            found = encoder.state_dict()
        for key, tensor in full.networks.peek_encoder(name, "stage_c").state_dict().items():
            assert found[key].dtype == torch.bfloat16
            assert torch.equal(found[key], tensor.bfloat16())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_network_needs_the_memory_of_two_blocks() -> None:
    network = StageC(c_hidden=[512, 512], nhead=[8, 8], blocks=[[2, 6], [6, 2]], c_cond=512).eval()
    network.requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.02 * torch.randn_like(parameter)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    gpu = torch.device("cuda")
    config = network.config
    given = {
        "x": torch.randn(1, 16, 8, 8),
        "r": torch.rand(1),
        "clip_text": torch.randn(1, 8, config["c_clip_text"]),
        "clip_text_pooled": torch.randn(1, 1, config["c_clip_text_pooled"]),
        "clip_img": torch.randn(1, 1, config["c_clip_img"]),
    }
    on_gpu = {key: value.to(gpu) for key, value in given.items()}
    expected = network.to(gpu)(**on_gpu)
    network.cpu()
    offloaded = Offloaded(network, lazy_state(state), gpu, in_files=False, units=network.units_to_wait())
    largest = max(len(home.buffer) for home in offloaded.homes)  # type: ignore[union-attr]
    before = torch.cuda.memory_allocated()
    with offloaded.lent():
        held = torch.cuda.memory_allocated() - before
        assert held <= len(offloaded.rest.buffer) + 2 * largest + 2**21  # type: ignore[union-attr]
        for _ in range(3):
            assert torch.equal(network(**on_gpu), expected)
    assert torch.cuda.memory_allocated() - before < 2**21
