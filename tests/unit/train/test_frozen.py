"""Frozen networks: in few bits, or in the CPU's memory, they say what they said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules.encoders import TextEncoder
from modules.schema import ConfigError, from_plain
from modules.settings import ImageEncoderSettings, NetworkSettings, TextEncoderSettings, identity
from tests.integration.recipe_cases import IMAGE, RECIPES, TEXT_ENCODER, make_config
from train.encoders import Encoders
from train.frozen import held, visiting
from train.recipes import make_recipe

CPU = torch.device("cpu")


class Twice(nn.Module):
    """With a method that computes beside forward, and calls it."""

    forward_methods = ("twice",)

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.seen: list[set[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append({tensor.data_ptr() for tensor in self.state_dict().values()})
        return self.norm(self.layer(x))

    def twice(self, x: Tensor) -> Tensor:
        return self(self(x)) + self.layer.bias


def test_an_offloaded_network_is_elsewhere_while_it_runs_and_only_then() -> None:
    network, x = Twice(), torch.ones(2, 4)
    expected = network.eval().twice(x)
    network.seen.clear()
    network = held(network, NetworkSettings(offload=True), CPU)
    home = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert torch.equal(network.twice(x), expected) and network(x).shape == (2, 4)
    assert [tensor.data_ptr() in home for tensor in network.state_dict().values()] == [True] * len(home)
    assert len(network.seen) == 3 and not any(seen & home for seen in network.seen)


def test_an_offloaded_network_is_back_after_an_error() -> None:
    network = nn.Linear(4, 4)
    home = network.weight.data_ptr()
    with pytest.raises(RuntimeError):
        visiting(network, CPU)(torch.ones(2, 3))
    assert network.weight.data_ptr() == home


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("nf4", 0.6)])
def test_encoders_in_few_bits_say_nearly_the_same_and_are_exported_whole(
    kind: str, most: float, tmp_path: Path
) -> None:
    if kind == "nf4":
        pytest.importorskip("bitsandbytes")
    said = []
    for own in ({}, {"frozen_weights": kind}, {"offload": True}):
        text = from_plain(TextEncoderSettings, {**TEXT_ENCODER, **own})
        image = from_plain(ImageEncoderSettings, {"config": IMAGE, **own})
        encoders = Encoders(text, image, torch.float32)
        encoders.build(CPU)
        features = encoders.text(["red circle", ""])
        said.append([*features, encoders.image_features(torch.ones(1, 3, 16, 16), "patches")])
        encoders.export(tmp_path / (own.get("frozen_weights") or "whole"))
    for expected, found, same in zip(*said, strict=True):
        assert 0 < (found - expected).norm() / expected.norm() < most
        assert torch.equal(same, expected)
    again = TextEncoder(source=str(tmp_path / kind / "text_encoder"), max_length=8)
    torch.testing.assert_close(again(["red circle", ""]).tokens, said[0][0])


def test_an_encoder_is_the_same_however_it_is_held() -> None:
    plain = from_plain(TextEncoderSettings, TEXT_ENCODER)
    other = from_plain(TextEncoderSettings, {**TEXT_ENCODER, "frozen_weights": "int8", "offload": True})
    assert identity("text_encoder", plain) == identity("text_encoder", other)


@pytest.mark.parametrize(
    ("network", "own", "recipe", "message"),
    [
        ("stage_c", {"frozen_weights": "int8"}, {}, r"model\.stage_c\.frozen_weights: .* learns"),
        ("stage_c", {"offload": True}, {}, r"model\.stage_c\.offload: .* gradients pass"),
        ("stage_c", {"offload": True}, {"name": "lora"}, r"model\.stage_c\.offload: .* gradients pass"),
        ("stage_c", {"offload": True}, {"name": "lcm"}, r"model\.stage_c\.offload: .* gradients pass"),
        (
            "text_encoder",
            {"offload": True},
            {"name": "lora", "tokens": {"red": None}},
            r"text_encoder\.offload",
        ),
        ("stage_c", {"frozen_weights": "int4"}, {}, r"model\.stage_c\.frozen_weights: found 'int4'"),
    ],
)
def test_what_cannot_be_held_so_is_refused(network: str, own: Any, recipe: Any, message: str) -> None:
    base = RECIPES["stage_c"]
    model = {**base["model"], network: {**base["model"][network], **own}}
    model["stage_c"] = {**model["stage_c"], "allow_random": True}
    own = {**recipe, "base": {"name": "stage_c", "sampling": {"steps": 2, "shift": 2.0}}} if recipe else {}
    config = replace(make_config("stage_c"), model=model, recipe=own or base["recipe"])
    with pytest.raises(ConfigError, match=message):
        make_recipe(config)


def test_what_is_shared_out_is_not_offloaded() -> None:
    model = {"text_encoder": {**TEXT_ENCODER, "offload": True}}
    with pytest.raises(ConfigError, match=r"model\.text_encoder\.offload: .* choose one"):
        make_config("stage_c", model=model, parallel={"mode": "fsdp", "shard_frozen": True})
