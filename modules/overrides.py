"""Settings on the command line, in the grammar of Hydra."""

import re

QUOTED_KEY = re.compile(r"""(?<=[{,])\s*(["'])(?P<key>[^"']+)\1\s*(?=:)""")
SYNTAX = re.compile(r"[\\()\[\]{}:=, ]")


def with_escaped_keys(value: str) -> str:
    """A value whose dictionaries may have quoted keys, as YAML and JSON write them: {"[me]": cat}.

    Hydra's grammar knows no quoted keys; characters that are syntax are to be escaped: {\\[me\\]: cat}.
    """
    return QUOTED_KEY.sub(lambda found: SYNTAX.sub(r"\\\g<0>", found["key"]), value)
