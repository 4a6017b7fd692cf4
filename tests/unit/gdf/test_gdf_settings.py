"""Sampling settings: what they refuse, and what they tell GDF.sample."""

from typing import Any

import pytest

import gdf
from gdf import SAMPLERS, SamplingSettings


@pytest.mark.parametrize("guidance", [1, 1.0, [1, 1], (1.0, 1.0)])
def test_guidance_of_one_needs_no_unconditional_prediction(guidance: Any) -> None:
    assert SamplingSettings(guidance=guidance).keywords()["cfg"] is None
    assert SamplingSettings(guidance=(1, 2)).keywords()["cfg"] == (1, 2)


def test_every_setting_reaches_the_sampling() -> None:
    keywords = SamplingSettings(steps=3, guidance=2.0, shift=1.5, sampler="heun", rescale=0.2).keywords()
    assert isinstance(keywords.pop("sampler"), gdf.HeunSampler)
    assert keywords == {"timesteps": 3, "cfg": 2.0, "shift": 1.5, "cfg_rho": 0.2}


def test_every_sampler_has_a_short_name() -> None:
    named = {value for value in vars(gdf).values() if isinstance(value, type)}
    assert set(SAMPLERS.values()) == {
        kind for kind in named if issubclass(kind, gdf.BaseSampler) and kind is not gdf.BaseSampler
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "^steps: expected at least 1, found 0"),
        ({"shift": float("nan")}, "^shift: expected a number above 0"),
        ({"rescale": -0.1}, "^rescale: expected a number from 0 to 1"),
        ({"guidance": [1, 2, 3]}, "^guidance: expected a number or a pair"),
        ({"sampler": "dppm"}, "^sampler: found 'dppm'; did you mean 'ddpm'"),
    ],
)
def test_what_is_impossible_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**values)
