"""Settings: what they refuse, and how plain data becomes settings."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from gdf import RELEASED_SAMPLING, SamplingSettings
from inference.config import Config, changed_keys, plan
from inference.settings import Request, StageSettings, Weights
from modules.schema import from_plain

CONFIG_FILE = Path(__file__).parents[3] / "configs" / "inference.yaml"


def test_released_sampling_settings() -> None:
    c, b = RELEASED_SAMPLING["stage_c"], RELEASED_SAMPLING["stage_b"]
    assert (c.steps, c.guidance, c.shift, c.sampler, c.rescale) == (20, 4.0, 2.0, "ddpm", 0.7)
    assert (b.steps, b.guidance, b.shift, b.sampler, b.rescale) == (10, 1.1, 1.0, "ddpm", 0.7)


def test_the_config_file_holds_exactly_the_defaults() -> None:
    values = yaml.safe_load(CONFIG_FILE.read_text())
    del values["hydra"], values["defaults"]
    assert from_plain(Config, values) == Config()
    assert set(values) == {entry.name for entry in fields(Config)}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": 0}, "steps: expected at least 1"),
        ({"shift": 0.0}, "shift: expected a number above 0"),
        ({"rescale": 1.5}, "rescale: expected a number from 0 to 1"),
        ({"sampler": "plms"}, "sampler: found 'plms'; did you mean 'lcm'?"),
        (
            {"guidance": [1.0, 2.0, 3.0]},
            "guidance: expected a number or [a number, a number], found [1.0, 2.0, 3.0]",
        ),
        ({"steps": "many"}, "steps: expected a whole number, found 'many'"),
        ({"steps": True}, "steps: expected a whole number, found true"),
        ({"stepz": 3}, "stepz: unknown key; did you mean 'steps'?"),
    ],
)
def test_errors_name_the_key_in_full(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError) as error:
        from_plain(Config, {"stage_c": values})
    assert f"stage_c.{named}" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_chosen_is_as_the_defaults_say() -> None:
    defaults = SamplingSettings(3, 2.0, 1.5, "ddim", 0.1)
    assert [f.name for f in fields(StageSettings)] == [f.name for f in fields(SamplingSettings)]
    assert StageSettings().over(defaults) == defaults
    chosen = StageSettings(steps=5, rescale=0.0)
    assert chosen.over(defaults) == SamplingSettings(5, 2.0, 1.5, "ddim", 0.0)


@pytest.mark.parametrize("values", [{"seed": -1}, {"seed": 2**63}, {"strength": 0.0}, {"strength": 1.1}])
def test_requests_refuse_impossible_values(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))}: expected"):
        Request(**values)


def test_a_request_survives_plain_data() -> None:
    request = Request(prompt="ä", seed=5, stage_c=StageSettings(guidance=(4.0, 1.0)))
    assert from_plain(Request, asdict(request)) == request


def test_only_weights_that_are_set_are_given() -> None:
    assert Weights(stage_a="a.safetensors").given() == {"stage_a": "a.safetensors"}


def test_every_prompt_and_image_meets_every_seed() -> None:
    requests = plan(Config(prompt=["a", "b"], seed=7, num_images=2, image=["x.png", "y.png"]), 0)
    found = [(r.prompt, r.image, r.seed) for r in requests]
    assert found == [(p, i, s) for p in "ab" for i in ("x.png", "y.png") for s in (7, 8)]


def test_seeds_given_or_drawn() -> None:
    assert [r.seed for r in plan(Config(seed=[3, 9]), 0)] == [3, 9]
    assert [r.seed for r in plan(Config(num_images=2), 40)] == [40, 41]
    with pytest.raises(ValueError, match="num_images: 3, but 2 seeds"):
        plan(Config(seed=[3, 9], num_images=3), 0)


def test_settings_reach_the_requests() -> None:
    config = Config(negative_prompt="n", width_px=40, strength=0.3, stage_b=StageSettings(steps=2))
    [request] = plan(config, 0)
    assert (request.negative_prompt, request.width_px, request.strength) == ("n", 40, 0.3)
    assert request.stage_b.steps == 2


def test_every_picture_has_its_mask() -> None:
    def masks(**settings: Any) -> list[tuple[str | None, str | None]]:
        return [(r.image, r.mask) for r in plan(Config(seed=1, **settings), 0)]

    assert masks(image=["a", "b"], mask="m") == [("a", "m"), ("b", "m")]
    assert masks(image=["a", "b"], mask=["m", "n"]) == [("a", "m"), ("b", "n")]
    with pytest.raises(ValueError, match="mask: 2 for 1 images"):
        masks(image="a", mask=["m", "n"])


@pytest.mark.parametrize("key", ["num_images", "batch_size"])
def test_numbers_of_pictures_are_positive(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: expected at least 1"):
        Config(**{key: 0})


def test_changed_keys_are_those_that_differ_from_the_defaults() -> None:
    assert changed_keys(Config(prompt="x", stage_c=StageSettings(steps=3))) == ["prompt", "stage_c"]
