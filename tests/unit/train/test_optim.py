"""The learning rate never starts at 0, decay spares what it should, the optimizers do as AdamW says."""

import math

import pytest
import torch
from torch import nn

from modules.adapters.lora_layer import LoRALayer
from modules.adapters.tokens import TokenVector
from train.config import OptimConfig
from train.optim.optimizers import decay_groups, make_optimizer
from train.optim.rates import learning_rate, set_learning_rate


def rates(config: OptimConfig, num_steps: int) -> list[float]:
    return [learning_rate(config, step, num_steps) for step in range(num_steps)]


def test_warm_up_rises_evenly_from_above_zero_to_the_full_rate() -> None:
    found = rates(OptimConfig(lr=1.0, warmup_steps=4), 8)
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rates(OptimConfig(lr=0.5), 3) == [0.5] * 3
    assert rates(OptimConfig(lr=0.5, schedule="cosine"), 3)[0] == 0.5


def test_cosine_falls_smoothly_to_its_end() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=10, schedule="cosine", final_lr_share=0.1)
    found = rates(config, 110)
    assert all(a < b for a, b in zip(found[:10], found[1:11], strict=True))
    assert all(a > b for a, b in zip(found[10:], found[11:], strict=False))
    assert found[60] == pytest.approx(0.55, abs=1e-6)
    assert learning_rate(config, 110, 110) == pytest.approx(0.1) == learning_rate(config, 200, 110)
    assert found[-1] - 0.1 < 0.9 * (math.pi / 100) ** 2


def test_decay_spares_biases_scales_and_embeddings() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2), nn.Embedding(3, 2))
    module[2].weight.requires_grad_(False)
    decaying, others = decay_groups(module)
    assert [id(p) for p in decaying] == [id(module[0].weight)]
    assert {id(p) for p in others} == {
        id(p) for p in (module[0].bias, module[1].weight, module[1].bias, module[2].bias, module[3].weight)
    }


def test_decay_spares_what_adapters_learn_beside_their_factors() -> None:
    layer = LoRALayer([2, 4], [3, 2], 1.0, dora=[3, 1])
    decaying, others = decay_groups(nn.ModuleList([layer, TokenVector(4)]))
    assert {p.shape for p in decaying} == {(2, 4), (3, 2)}
    assert {p.shape for p in others} == {(3, 1), (1, 4)}


def test_the_first_adamw_step_is_the_rate_times_the_sign_after_decay() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = make_optimizer(layer, OptimConfig(lr=1.0, weight_decay=0.1))
    layer(torch.ones(1, 3)).sum().backward()
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.01 * 0.1) - 0.01)
    torch.testing.assert_close(layer.bias.detach(), bias - 0.01)


def test_eight_bit_adamw_keeps_small_states() -> None:
    pytest.importorskip("bitsandbytes")
    layer = nn.Linear(128, 64)
    optimizer = make_optimizer(layer, OptimConfig(name="adamw8bit", lr=0.1))
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, layer.weight)
    assert optimizer.state[layer.weight]["state1"].dtype == torch.uint8
