"""What Hydra and OmegaConf say of a setting, in one line that needs no knowledge of them."""

import re
from collections.abc import Callable

Match = re.Match[str]
MANUAL = re.compile(r"\s*See https://hydra\.cc\S*( for details)?")
PAIRS = {"(": ")", "[": "]", "{": "}"}
WORDS: list[tuple[str, Callable[[Match], str]]] = [  # patterns of whole messages, and what is said instead
    (
        r"Ambiguous value for argument '\+*([^=]*)=(.*?)'\s+1\. .*",
        lambda m: f"{m[1]}={m[2]}: several values; write [{m[2]}] for a list, or add --multirun to try each",
    ),
    (
        r"Error merging override \+*([^=]*)=(.*)",
        lambda m: f"{m[1]}: {m[2]} is of another kind than what it replaces: a list, or settings by name",
    ),
    (
        r"invalid literal for int\(\) with base 10: '(.*)'",
        lambda m: f"{m[1]}: set in a list, whose parts have no names; give the whole list: KEY=[...]",
    ),
    (r"(.*?)\s+full_key: (\S+)\s+object_type=\S+", lambda m: f"{m[2]}: {m[1]}"),
    (
        r"Cannot find primary config '(.*?)'.*",
        lambda m: f"--config-name: {m[1]}: no such config; leave the option out",
    ),
]


def in_words(message: str) -> str:
    """A message without Hydra's own names for things; an unknown one without the address of its manual."""
    for pattern, words in WORDS:
        if found := re.fullmatch(pattern, message.strip(), flags=re.DOTALL):
            return words(found)
    return MANUAL.sub("", message)


def unreadable(override: str) -> str:
    """The line for an argument that is no setting in Hydra's grammar."""
    setting = override.lstrip("+")
    key, equals, value = setting.partition("=")
    if not equals:
        return f"{setting}: no setting; expected KEY=VALUE"
    if not is_closed(value):
        hint = f"a bracket or quote stays open; quote the whole setting in a shell: '{key}={{name: value}}'"
    else:
        hint = f"to have these characters in a text, write \"{key}='TEXT'\""
    return f"{setting}: not a setting that can be read; {hint}"


def is_closed(value: str) -> bool:
    """Whether every bracket and quote of a value is closed."""
    waiting: list[str] = []  # closing characters; a quote hides all but itself
    for character in re.sub(r"\\.", "", value, flags=re.DOTALL):
        if waiting and character == waiting[-1]:
            waiting.pop()
        elif waiting and waiting[-1] in "'\"":
            continue
        elif character in "'\"":
            waiting.append(character)
        elif character in PAIRS:
            waiting.append(PAIRS[character])
        elif character in PAIRS.values():
            return False
    return not waiting
