"""Settings on the command line, in the grammar of Hydra."""

import re
from collections.abc import Sequence

from modules.schema import ConfigError, nearest

QUOTED_KEY = re.compile(r"""(?<=[{,])\s*(["'])(?P<key>[^"']+)\1\s*(?=:)""")
SYNTAX = re.compile(r"[\\()\[\]{}:=, ]")
OPTIONS = (  # of Hydra
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p"),
    *(
        "--run",
        "-r",
        "--multirun",
        "-m",
        "--shell-completion",
        "-sc",
        "--config-path",
        "-cp",
        "--config-name",
        "-cn",
    ),
    *("--config-dir", "-cd", "--experimental-rerun", "--info", "-i"),
)


def with_escaped_keys(value: str) -> str:
    """A value whose dictionaries may have quoted keys, as YAML and JSON write them: {"[me]": cat}.

    Hydra's grammar knows no quoted keys; characters that are syntax are to be escaped: {\\[me\\]: cat}.
    """
    return QUOTED_KEY.sub(lambda found: SYNTAX.sub(r"\\\g<0>", found["key"]), value)


def check_arguments(arguments: Sequence[str], texts: Sequence[str] = ()) -> None:
    """Raise ConfigError for what Hydra would not say in one line, or would carry out: classes to call.

    texts: keys whose values are anybody's words.
    """
    for argument in arguments:
        key, _, value = argument.partition("=")
        if not key or not argument.isprintable() and key.lstrip("+") not in texts:
            raise ConfigError(f"{argument}: no setting; expected KEY=VALUE")
        if key.startswith("-") and key not in OPTIONS:
            raise ConfigError(f"{key}: no such option; {nearest(key, OPTIONS)}")
        if "_target_" in key or ("_target_" in value and key.lstrip("+") not in texts):
            raise ConfigError(f"{argument}: settings name no classes; leave _target_ out")
