from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import modules
from modules import NETWORKS
from modules.encoders import ImageEncoder, TextEncoder
from modules.network import plain

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "model").glob("*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_model_config_can_be_built(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    if path.parent.name in NETWORKS:
        with torch.device("meta"):
            network = modules.build(path.parent.name, settings["config"])
        assert network.config | settings["config"] == network.config
    elif settings["source"] is None:
        encoder = {"text_encoder": TextEncoder, "image_encoder": ImageEncoder}[path.parent.name]
        encoder(**settings)


@pytest.mark.parametrize(
    ("network", "size", "parameters"),
    [
        ("stage_c", "3_6b", 3_589_103_632),
        ("stage_c", "1b", 1_030_785_040),
        ("stage_b", "1_5b", 1_562_941_136),
        ("stage_b", "700m", 699_471_248),
        ("stage_a", "base", 18_406_894),
        ("semantic_compressor", "base", 20_197_968),
        ("previewer", "base", 3_979_651),
        ("discriminator", "base", 6_271_105),
    ],
)
def test_released_sizes(network: str, size: str, parameters: int) -> None:
    path = Path(__file__).parents[3] / "configs" / "model" / network / f"{size}.yaml"
    with torch.device("meta"):
        built = modules.build(network, yaml.safe_load(path.read_text())["config"])
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters


def test_shard_units_hold_almost_all_weights_of_a_diffusion_network() -> None:
    with torch.device("meta"):
        network = modules.build("stage_c", {})
    inside = sum(p.numel() for unit in network.shard_units() for p in unit.parameters())
    assert inside / sum(p.numel() for p in network.parameters()) > 0.98


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="network 'stage_cc' is not known; did you mean 'stage_c'?"):
        modules.build("stage_cc", {})
    with pytest.raises(
        ValueError, match="config of stage_c: keyword 'c_hiden' is not known; did you mean 'c_hidden'?"
    ):
        modules.build("stage_c", {"c_hiden": [8, 8]})
    with pytest.raises(ValueError, match="expected one of: c_cond, c_hidden, c_in, depth"):
        modules.build("discriminator", {"zzz": 1})


def test_config_is_plain_data_that_builds_the_same_network() -> None:
    network = modules.build("previewer", {"c_in": 4})
    assert network.config == {"c_in": 4, "c_hidden": 512, "c_out": 3}
    assert plain(((1, 2), {"a": ("b",)}, "text")) == [[1, 2], {"a": ["b"]}, "text"]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_says_what_it_is(name: str) -> None:
    with torch.device("meta"):
        network = modules.build(name, {})
        again = modules.build(name, network.config)
    shapes: list[Any] = [{key: tuple(t.shape) for key, t in n.state_dict().items()} for n in (network, again)]
    assert shapes[0] == shapes[1]
    assert network.shard_units()
