"""Networks from settings: fresh or from weights, learning or frozen, and checked before they are made."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import modules
from modules.schema import ConfigError
from modules.settings import NetworkSettings
from modules.weights import save_network
from train.networks import (
    check_networks,
    evaluating,
    frozen_network,
    learning_network,
    network_dtype,
)

SMALL = {"c_in": 4, "c_hidden": 16}
CPU = torch.device("cpu")


@dataclass
class Model:
    """Two networks of a recipe."""

    previewer: NetworkSettings
    semantic_compressor: NetworkSettings | None = None


@pytest.fixture
def weights(tmp_path: Path) -> str:
    path = tmp_path / "previewer.safetensors"
    save_network(path, modules.build("previewer", SMALL), "previewer", {})
    return str(path)


def test_a_learning_network_trains_in_float32_whatever_its_file_holds(weights: str) -> None:
    network = learning_network("previewer", NetworkSettings(weights=weights), CPU)
    assert network.training and network.config["c_hidden"] == 16
    assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())


def test_a_frozen_network_evaluates_in_the_runs_precision(weights: str) -> None:
    settings = NetworkSettings(weights=weights)
    network = frozen_network("previewer", settings, CPU, network_dtype("bf16"))
    assert not network.training
    assert not any(p.requires_grad or p.dtype != torch.bfloat16 for p in network.parameters())


def test_keywords_beside_weights_change_what_the_file_says(tmp_path: Path) -> None:
    stages = [["fused", 1, 3, 2, 24, 24, 1]]
    config = {"c_latent": 4, "backbone": {"stages": stages, "c_last": 32}, "stochastic_depth": 0.5}
    saved = modules.build("semantic_compressor", config)
    save_network(tmp_path / "compressor.safetensors", saved, "semantic_compressor", {})
    settings = NetworkSettings({"stochastic_depth": 0.0}, weights=str(tmp_path / "compressor.safetensors"))
    network = learning_network("semantic_compressor", settings, CPU)
    assert network.config == {**saved.config, "stochastic_depth": 0.0}
    torch.testing.assert_close(network.state_dict(), saved.state_dict())


def test_keywords_that_do_not_fit_the_weights_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match="expected shape"):
        learning_network("previewer", NetworkSettings(config={"c_hidden": 32}, weights=weights), CPU)


def test_a_frozen_network_needs_weights_unless_it_may_be_random() -> None:
    with pytest.raises(ConfigError, match=r"model\.previewer\.weights: missing"):
        check_networks(Model(NetworkSettings()), learning=())
    check_networks(Model(NetworkSettings(allow_random=True)), learning=())
    check_networks(Model(NetworkSettings(config=SMALL)), learning=("previewer",))


def test_keywords_are_checked_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match=r"model\.previewer\.config: .*'c_hidden'"):
        check_networks(Model(NetworkSettings(config={"c_hiden": 8})), learning=("previewer",))


def test_evaluating_gives_every_network_its_mode_back() -> None:
    learning = learning_network("previewer", NetworkSettings(config=SMALL), CPU)
    frozen = frozen_network("previewer", NetworkSettings(config=SMALL), CPU, torch.float32)
    with pytest.raises(RuntimeError), evaluating(learning, frozen):
        assert not learning.training and not frozen.training
        raise RuntimeError
    assert learning.training and not frozen.training


@pytest.mark.parametrize(("train", "learning"), [(True, ()), (False, ("previewer",))])
def test_what_a_recipe_does_not_do_is_not_asked_for(
    weights: str, train: bool, learning: tuple[str, ...]
) -> None:
    model = Model(NetworkSettings(weights=weights, train=train))
    with pytest.raises(
        ConfigError, match=r"model\.previewer\.train: found (true|false), but .*; leave it out"
    ):
        check_networks(model, learning)
    check_networks(Model(NetworkSettings(weights=weights, train=not train)), learning)
