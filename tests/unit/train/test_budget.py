"""What is counted on paper is what a real run takes: on a CPU with small networks, within a tenth."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from modules import StageC
from tests.unit.train.peaks import measured
from train.budget.autocast import OnMeta, as_on_cuda, attend
from train.budget.ledger import Ledger
from train.budget.memory import FROZEN_BYTES, linear_weights, moments_bytes, nbytes
from train.budget.paper import Working
from train.budget.typed import typed_keys
from train.config import OptimConfig, ParallelConfig
from train.optim.optimizers import make_optimizer
from train.parallel.preparation import prepare
from train.parallel.world import World

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL: dict[str, Any] = {
    "c_cond": 64,
    "c_hidden": (64, 64),
    "nhead": (4, 4),
    "blocks": ((2, 2), (2, 2)),
    "c_clip_text": 32,
    "c_clip_text_pooled": 32,
    "c_clip_img": 32,
    "dropout": 0.0,
}


def small(device: torch.device, recompute: bool = False, mode: OnMeta | None = None) -> StageC:
    with device:
        network = StageC(**SMALL).train()
    for unit in network.shard_units() if mode else ():
        unit.forward = mode.inside(unit.forward)  # type: ignore[union-attr, method-assign]
    prepare([network], ParallelConfig(activation_checkpointing=recompute), World(0, 1, CPU))
    return network


def inputs(device: torch.device, batch: int) -> tuple[Tensor, ...]:
    shapes = [(batch, 16, 24, 24), (batch,), (batch, 77, 32), (batch, 1, 32), (batch, 1, 32)]
    return tuple(torch.rand(*shape, device=device) for shape in shapes)


def on_paper(batch: int, recompute: bool) -> Working:
    given = inputs(META, batch)
    with as_on_cuda(None) as mode:
        network = small(META, recompute, mode)
        with Ledger(META, network.parameters()) as ledger:
            loss = network(*given).square().mean()
            mode.end_of_forward()
            with ledger.backward():
                loss.backward()
        return Working(
            ledger.peak_working, ledger.peak, ledger.gradients, ledger.peak_frozen, ledger.operations
        )


def measured_peak(batch: int, recompute: bool) -> int:
    """Most bytes at once beside what was there before, as torch's allocator reports them."""
    network, given = small(CPU, recompute), inputs(CPU, batch)
    return measured(lambda: network(*given).square().mean().backward())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_bytes_of_a_step_are_those_of_a_real_one(batch: int, recompute: bool) -> None:
    counted = on_paper(batch, recompute)
    assert counted.together == pytest.approx(measured_peak(batch, recompute), rel=0.1)
    assert counted.gradients == sum(nbytes(p) for p in small(META).parameters())


def test_operations_are_those_of_the_networks() -> None:
    """Two for each multiplication: by every weight for every position, and of attention."""
    kept, repeated = on_paper(1, False).operations, on_paper(1, True).operations
    network = small(META)
    positions = 24 * 24
    products = sum(p.numel() for n, p in network.named_parameters() if p.ndim > 1 and "mapper" not in n)
    assert kept["forward"] > 2 * positions * products * 0.95
    assert 2 < kept["backward"] / kept["forward"] < 2.5  # of attention 2.5
    assert 0.5 < repeated["recomputed"] / kept["forward"] <= 1 and not kept["recomputed"]
    assert repeated["forward"] == kept["forward"]


@contextmanager
def cuda_autocast() -> Iterator[None]:
    """PyTorch's own, for tensors that only say that they are on a GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


def kept_bytes(device: torch.device, autocast: Any) -> int:
    """What autograd keeps of a forward pass beside the weights."""
    network, given = small(device), inputs(device, 2)
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast:
        loss = network(*given).square().mean()
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)


@pytest.mark.filterwarnings("ignore")
def test_number_formats_are_those_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a GPU torch takes the one way of attention that keeps all scores.
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attend)
    with FakeTensorMode():
        real = kept_bytes(torch.device("cuda"), cuda_autocast())
    assert kept_bytes(META, as_on_cuda(torch.bfloat16)) == pytest.approx(real, rel=0.02)
    assert kept_bytes(META, as_on_cuda(None)) > 1.2 * real


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_optimizer_states_are_those_of_the_optimizer(name: Any) -> None:
    if name != "adamw":
        pytest.importorskip("bitsandbytes")
    network = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, 8))
    optimizer = make_optimizer(network, OptimConfig(name=name))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, Tensor) and not key.startswith(("qmap", "step"))
    )
    assert sum(moments_bytes(p.numel(), name) for p in network.parameters()) == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_few_bits_take_what_is_reckoned(kind: Any) -> None:
    if kind == "nf4":
        pytest.importorskip("bitsandbytes")
    from modules.adapters.quantised import quantise

    network = small(CPU).to(torch.bfloat16).requires_grad_(False)
    layers = linear_weights(network)
    per_weight, per_row = FROZEN_BYTES[kind]
    reckoned = sum(nbytes(w) - int(w.numel() * per_weight) - len(w) * per_row for w in layers)
    before, after = quantise(network, kind)
    assert reckoned == pytest.approx(before - after, rel=0.05)


def test_typed_keys_are_what_was_typed(tmp_path: Any) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "adamw8bit.yaml").write_text("defaults: [adamw]\nname: adamw8bit\n")
    typed = typed_keys(
        [
            "experiment=a/b",
            "memory=8gb",
            "optim=adamw8bit",
            "++run.ema.enabled=false",
            "data={batch_size: 4}",
        ],
        tmp_path,
    )
    assert {"optim.name", "run.ema.enabled", "data.batch_size"} <= typed
    assert not typed & {"experiment", "memory", "optim.lr"}


def test_a_weight_is_cast_once_whoever_needs_its_gradient() -> None:
    """As PyTorch does, where a pass without gradients comes first (a distillation's target)."""
    layer, x = nn.Linear(8, 8, bias=False, device="meta"), torch.ones(1, 8, device="meta")
    with as_on_cuda(torch.bfloat16), Ledger(META, layer.parameters()) as ledger:
        with torch.no_grad():
            layer(x)
        first = ledger.working
        y = layer(x)
        assert ledger.working - first < 2 * 8 * 8
        with ledger.backward():
            y.sum().backward()
    assert layer.weight.grad is not None
