"""Options may stand anywhere among the settings; a wrong one is named before Hydra sees it."""

import pytest

from modules.hydra_options import options_last
from modules.schema import ConfigError


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("experiment=x --multirun optim.lr=1,2", "experiment=x optim.lr=1,2 --multirun"),
        ("-m a=1 --config-dir mine b=2", "a=1 b=2 -m --config-dir mine"),
        ("--cfg job a=1", "a=1 --cfg job"),
        ("--cfg=job a=1 --resolve", "a=1 --cfg job --resolve"),
        ("--info a=1", "a=1 --info all"),
        ("--info config a=1", "a=1 --info config"),
        ("a=-1 b=--x", "a=-1 b=--x"),
    ],
)
def test_settings_come_first_in_their_order(typed: str, taken: str) -> None:
    assert options_last(typed.split()) == taken.split()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("a=1 --multirnu", r"--multirnu: no such option; did you mean '--multirun'\?"),
        ("--num_images 3", r"--num_images: .*settings are written without dashes: num_images=VALUE"),
        ("--batch-size=3", r"--batch-size: .*without dashes: batch_size=VALUE"),
        ("--cfg a=1", r"--cfg: a value is missing; expected job \| hydra \| all"),
        ("a=1 --config-name", "--config-name: a value is missing; expected one$"),
        ("--cfg=jop", r"--cfg: found 'jop'; did you mean 'job'\?"),
        ("--multirun=2", "--multirun takes no value"),
        ("--experimental-rerun=config.pickle", "--experimental-rerun: no such option"),  # it would unpickle
        ("--experimental-rerun config.pickle", "--experimental-rerun: no such option"),
    ],
)
def test_what_hydra_would_answer_with_its_usage_or_carry_out_is_refused(typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options_last(typed.split())
