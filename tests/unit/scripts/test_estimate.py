"""The estimate on paper: what is counted is counted right, and what is assumed can be changed."""

import pytest

from scripts.estimate import arguments, cost, estimate, settings


@pytest.fixture(scope="module")
def config():
    return settings(["experiment=train/stage_c_1b", "parallel=hsdp"])


def test_operations_are_those_of_the_networks(config):
    each = cost(config)
    assert each.latents == 16 * 24 * 24
    # Nearly all parameters multiply every one of 576 positions, apart from attention's keys and values of the
    # 85 conditions and the mappers of the timestep.
    assert 0.9 < each.forward_flops / (2 * each.learning * 576) < 1.1
    # 8.4 G multiplications at 384 px, of EfficientNetV2-S without the classifier, by its publication.
    assert each.frozen_flops - 2 * (0.632e9 * 77 + 0.302e9 * 257) == pytest.approx(4 * 2 * 8.4e9, rel=0.05)


def test_figures_follow_from_settings_and_assumptions(config):
    options = arguments().parse_args(["--gpus", "64", "--gpus-per-node", "8", "--pictures", "256e6"])
    found = estimate(config, options)
    assert found["pictures in all"] == "512 M, 2.0 epochs"
    state = next(text for name, text in found.items() if "moments" in name)
    assert state == f"{20 * 1.0308 / 8:.1f} GB"
    assert found["checkpoint"].startswith("16 GB")


def test_other_recipes_and_mistakes_are_refused(config):
    other = config | {"recipe": {"name": "stage_a"}}
    with pytest.raises(ValueError, match="expected stage_c, found stage_a"):
        estimate(other, arguments().parse_args([]))
    with pytest.raises(ValueError, match="did you mean"):
        settings(["experiment=train/stage_c_1"])
