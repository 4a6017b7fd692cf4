"""Linear layers by oneDNN: the same numbers and gradients as torch's, and nobody is passed over."""

import math
import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from modules import products as module
from modules.products import Linear, product, with_gelu
from train.parallel.recomputation import recomputed

BF16 = torch.bfloat16
pytestmark = pytest.mark.skipif(module.ONEDNN is None, reason="this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def any_size_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(module, "LEAST", 1)
    monkeypatch.setattr(module, "SERVED", module.served() | {torch.float32})


def operations(action: Callable[[], object]) -> set[str]:
    """The names of what is computed."""
    with torch.profiler.profile() as profile:
        action()
    return {event.name for event in profile.events()}


def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 4, 7)])
@pytest.mark.parametrize("width", [9, 4])
@pytest.mark.parametrize("has_bias", [True, False])
def test_numbers_and_gradients_are_those_of_torch(shape: tuple[int, ...], width: int, has_bias: bool) -> None:
    given = [made(*shape), made(width, 7), *([made(width)] if has_bias else [])]
    found, expected = product(*given), F.linear(*given)
    torch.testing.assert_close(found, expected)
    outer = torch.randn(width, *shape[:-1]).movedim(0, -1)  # laid out otherwise than the result
    gradients = (torch.autograd.grad(each, given, outer) for each in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("width", [90, 4])
def test_the_way_back_lays_out_the_narrower_side_anew(width: int) -> None:
    x, weight = made(500, 7), made(width, 7)
    found = product(x, weight)
    with torch.profiler.profile(record_shapes=True) as profile:
        torch.autograd.grad(found, weight, torch.ones_like(found))
    copied = [event.input_shapes[0] for event in profile.events() if event.name == "aten::copy_"]
    assert copied and max(math.prod(shape) for shape in copied) == 500 * min(width, 7)


def test_what_does_not_learn_gets_no_gradient() -> None:
    x, weight, bias = made(5, 7), made(9, 7).detach(), made(9)
    product(x, weight, bias).sum().backward()
    assert x.grad is not None and weight.grad is None and bias.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_gelu_is_applied_in_one_go_without_gradients(dtype: torch.dtype) -> None:
    if dtype not in module.SERVED:
        pytest.skip("this processor has no bf16")
    layer, x, gelu = Linear(7, 9).to(dtype), torch.randn(5, 7, dtype=dtype), nn.GELU()
    exact = F.gelu(F.linear(x.double(), layer.weight.double(), layer.bias.double()))
    tolerance = {"atol": 2e-2, "rtol": 2e-2} if dtype == BF16 else {}
    for learns in (True, False):
        with torch.set_grad_enabled(learns):
            found = with_gelu(layer, x, gelu).double()
            torch.testing.assert_close(found, exact, check_dtype=False, **tolerance)
            assert ("aten::gelu" in operations(lambda: with_gelu(layer, x, gelu))) is learns


def test_adapters_that_hang_on_a_layer_are_heard() -> None:
    layer, x, gelu = Linear(7, 9), torch.randn(5, 7), nn.GELU()
    layer.register_forward_hook(lambda _, inputs, output: output + 1)
    with torch.no_grad():
        expected = F.gelu(F.linear(x, layer.weight, layer.bias) + 1)
        torch.testing.assert_close(with_gelu(layer, x, gelu), expected)


@pytest.mark.parametrize("why", ["autocast", "compiled training", "size", "processor", "formats"])
def test_torch_multiplies_where_onednn_is_not_to(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(5, 7), torch.randn(9, 7)
    if why == "compiled training":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    if why == "size":
        monkeypatch.setattr(module, "LEAST", 5 * 7 * 9 + 1)
    if why == "processor":
        monkeypatch.setattr(module, "SERVED", frozenset())
    if why == "formats":
        with pytest.raises(RuntimeError, match="dtype"):  # as torch says it
            product(x, weight.double())
        return
    with torch.autocast("cpu", BF16, enabled=why == "autocast"):
        assert "mkldnn::_linear_pointwise" not in operations(lambda: product(x, weight))
        assert product(x, weight).dtype == (BF16 if why == "autocast" else torch.float32)


def test_products_in_fp32_are_left_to_torch_but_on_processors_of_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for is_of_amd in (True, False):
        monkeypatch.setattr(module, "is_of_amd", lambda answer=is_of_amd: answer)
        assert (torch.float32 in module.served()) is is_of_amd
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert not module.served()


def test_a_compiler_takes_them_as_one_operation_for_all_sizes() -> None:
    layer, gelu = Linear(7, 9), nn.GELU()
    graphs = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda x: with_gelu(layer, x, gelu) + layer(x), backend=graphs, dynamic=True)
    with torch.no_grad():
        for rows in (5, 6, 50):
            x = torch.randn(rows, 7)
            torch.testing.assert_close(compiled(x), gelu(layer(x)) + layer(x))
        assert "kaskade::product" in operations(lambda: compiled(x))
    assert graphs.frame_count == 1


class Multiplied(TorchDispatchMode):
    """Counts the products that are computed."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += operation is module.ONEDNN.default
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("selective", "products"), [(True, 6), (False, 8)])
def test_selective_recomputation_keeps_their_results(selective: bool, products: int) -> None:
    layers = nn.Sequential(Linear(7, 9), nn.GELU(), Linear(9, 7))
    given = [made(5, 7), *layers.parameters()]
    expected = torch.autograd.grad(layers(given[0]).square().sum(), given)
    again = recomputed(layers, selective=selective)
    with Multiplied() as multiplied:
        found = torch.autograd.grad(again(given[0]).square().sum(), given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert multiplied.count == products  # two forward, again where nothing is kept, and four backward
