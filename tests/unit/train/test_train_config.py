"""Combinations that cannot work and files that are not there are refused before anything is built."""

from pathlib import Path
from typing import Any

import pytest

from modules.schema import ConfigError
from train.config import OptimConfig, config_from_plain


def plain(**changes: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": "x",
        "run": {"dir": "out", "num_steps": 100, "save_every": 10},
        "recipe": {"name": "stage_a"},
        "data": {"shards": "s"},
    }
    for group, entries in changes.items():
        settings[group] = {**settings.get(group, {}), **entries}
    return settings


def test_groups_that_are_not_given_have_their_defaults() -> None:
    config = config_from_plain({**plain(), "model": None, "gdf": None})
    assert config.optim == OptimConfig() and config.model == {} and config.tracker == {"csv": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": {"num_stepz": 1}}, r"run\.num_stepz: unknown key; did you mean 'num_steps'\?"),
        (
            {"run": {"keep_every": 15}},
            r"run\.keep_every: expected a multiple of run\.save_every \(10\), found 15",
        ),
        ({"run": {"precision": "fp16"}}, r"run\.precision: found 'fp16'; did you mean '[bf]+p?\d+'\?"),
        ({"optim": {"schedule": "cosine", "warmup_steps": 100}}, r"optim\.warmup_steps: .* less than"),
        ({"optim": {"name": "adamw8bit"}, "parallel": {"mode": "fsdp"}}, r"adamw8bit cannot work"),
        (
            {"optim": {"name": "adamw8bit"}, "parallel": {"mode": "hsdp"}},
            r"adamw8bit cannot .* parallel=hsdp",
        ),
        (
            {"optim": {"weights": "bf16_stochastic"}, "parallel": {"mode": "fsdp"}},
            r"optim\.weights: bf16_stochastic needs run\.precision=bf16, found fp32",
        ),
        (
            {
                "optim": {"weights": "bf16_stochastic"},
                "run": {"precision": "bf16"},
                "parallel": {"mode": "hsdp"},
            },
            r"optim\.weights: bf16_stochastic cannot .* parallel=hsdp; use fp32 or ddp",
        ),
        ({"run": {"clip_norm": 0}}, r"run\.clip_norm: expected a norm above 0, or null .* found 0"),
        ({"optim": {"betas": [0.9, 1.0]}}, r"optim\.betas: .* below 1, found \[0\.9, 1\.0\]"),
        (
            {"optim": {"players": {"model": {"players": {}}}}},
            r"optim\.players\.model\.players: expected settings of this player alone",
        ),
        ({"optim": {"fused_backward": True}}, r"run\.clip_norm: expected null with optim\.fused_backward"),
        (
            {"optim": {"fused_backward": True}, "run": {"clip_norm": None, "num_accum": 2}},
            r"run\.num_accum: expected 1 with optim\.fused_backward, .* found 2",
        ),
        (
            {"parallel": {"mode": "fsdp", "shard_size": 4}},
            r"parallel\.shard_size: found 4, .* parallel=hsdp$",
        ),
        (
            {"parallel": {"compile": True, "activation_checkpointing": "selective"}},
            r"parallel\.activation_checkpointing: expected false or true with parallel\.compile",
        ),
        (
            {"parallel": {"activation_checkpointing": "some"}},
            r"parallel\.activation_checkpointing: .*selective",
        ),
        ({"parallel": {"mode": "hsdp", "shard_size": 0}}, r"parallel\.shard_size: expected at least 1"),
        ({"parallel": {"mode": "ddp", "shard_frozen": True}}, r"parallel\.shard_frozen: found true, but"),
        (
            {"optim": {"players": {"d": {"lrr": 1.0}}}},
            r"optim\.players\.d\.lrr: unknown key; did you mean 'lr'",
        ),
        ({"optim": {"players": {"d": {"lr": -1.0}}}}, r"optim\.players\.d\.lr: expected at least 0"),
        ({"data": {"batch_sise": 3}}, r"data\.batch_sise: unknown key; did you mean 'batch_size'\?"),
        ({"data": {"batch_size": 0}}, r"data\.batch_size"),
        ({"extra": {"a": 1}}, r"extra: unknown key"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_plain(plain(**changes))


def test_a_recipe_without_a_name_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"recipe\.name: missing"):
        config_from_plain({**plain(), "recipe": {}})


def test_a_missing_weight_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "stage_a.safetensors").touch()
    wrong = str(tmp_path / "stage_aa.safetensors")
    with pytest.raises(
        FileNotFoundError, match=r"model\.stage_a\.weights: .*did you mean 'stage_a\.safetensors'"
    ):
        config_from_plain(plain(model={"stage_a": {"weights": wrong}}))
    config_from_plain(plain(model={"stage_a": {"weights": str(tmp_path / "stage_a.safetensors")}}))


def test_a_player_takes_over_what_it_does_not_change() -> None:
    optim = OptimConfig(lr=1e-3, betas=(0.5, 0.9), players={"discriminator": {"lr": 2e-3}})
    own = optim.of("discriminator")
    assert (own.lr, own.betas) == (2e-3, (0.5, 0.9))
    assert optim.of("generator").lr == 1e-3


def test_a_missing_library_is_named_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        config_from_plain(plain(optim={"name": "adamw8bit"}))
