"""Settings on the command line mean what the same text means in YAML."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from modules.overrides import check_arguments, with_escaped_keys
from modules.schema import ConfigError


@pytest.mark.parametrize(
    "value",
    [
        '{"[me]": "man|woman"}',
        "{'[me]': cat, '[you]': null}",
        '{"*.attn.*": 4, "*channelwise*": 8, "up_blocks.1.*": 16}',
        '[{weights: a.safetensors, tokens: {"two words": cat}}]',
        '{ "a:b=(c)" : 1}',
        "{plain: 1, other: [2, 3]}",
        '"text with {, \\" and :"',
        "outputs/mine",
    ],
)
def test_keys_may_be_quoted(value: str) -> None:
    override = OverridesParser.create().parse_override(f"key={with_escaped_keys(value)}")
    found = override.value()
    if isinstance(found, dict | list):
        assert found == yaml.safe_load(value)
    else:
        assert with_escaped_keys(value) == value


@pytest.mark.parametrize(
    "argument",
    [
        "hydra.job_logging.handlers.x.class=os.system",
        "++hydra.hydra_logging={version: 1, handlers: {x: {(): os.system}}}",
        "hydra/job_logging=colorlog",
    ],
)
def test_logging_that_hydra_would_set_up_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="logging"):
        check_arguments([argument])
