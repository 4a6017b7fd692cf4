"""Settings on the command line, in the grammar of Hydra."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from modules.schema import ConfigError

QUOTED_KEY = re.compile(r"""(?<=[{,])\s*(["'])(?P<key>[^"']+)\1\s*(?=:)""")
SYNTAX = re.compile(r"[\\()\[\]{}:=, ]")
ALLOW, TARGET = "allow_targets", "_target_"
CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
CALLING = ("callbacks", "launcher", "sweeper")  # of hydra: the nodes whose _target_ it calls
OPEN = "callbacks"  # the one of them that has no keys before the user gives it some
CALLED = re.compile(rf"\+{{0,2}}hydra\.({'|'.join(CALLING)})(\.\w+)*\.{TARGET}")
PLUGINS = (f"hydra.launcher.{TARGET}", f"hydra.sweeper.{TARGET}")
PLUGIN_PACKAGES = ("hydra_plugins.", "hydra._internal.core_plugins.")
LOGGING = re.compile(r"\+{0,2}hydra[./](hydra|job)_logging")


def with_escaped_keys(value: str) -> str:
    """A value whose dictionaries may have quoted keys, as YAML and JSON write them: {"[me]": cat}.

    Hydra's grammar knows no quoted keys; characters that are syntax are to be escaped: {\\[me\\]: cat}.
    """
    return QUOTED_KEY.sub(lambda found: SYNTAX.sub(r"\\\g<0>", found["key"]), value)


def take_targets(arguments: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """Command line -> the same without `allow_targets=[my_package.MyCallback]`, and the names in it.

    A setting of the command line alone: files, of a run or a checkpoint, know no such key. ConfigError for
    what is no name of a class.
    """
    kept, allowed = [], set()
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key != ALLOW:
            kept.append(argument)
            continue
        names = [name.strip() for name in value.removeprefix("[").removesuffix("]").split(",")]
        if wrong := [name for name in names if not CLASS.fullmatch(name)]:
            raise ConfigError(f"{ALLOW}: expected [my_package.MyCallback, ...], found {wrong[0]!r}")
        allowed |= set(names)
    return kept, frozenset(allowed)


def check_arguments(
    arguments: Sequence[str], texts: Sequence[str] = (), allowed: Collection[str] = ()
) -> None:
    """Raise ConfigError for what Hydra would not say in one line, or would carry out: classes to call.

    texts: keys whose values are anybody's words. allowed: classes that Hydra may call, see `take_targets`.
    """
    for argument in arguments:
        key, _, value = argument.partition("=")
        if not key or not argument.isprintable() and key.lstrip("+") not in texts:
            raise ConfigError(f"{argument}: no setting; expected KEY=VALUE")
        if LOGGING.match(key):  # its handlers are any callables that are named there
            raise ConfigError(f"{argument}: logging is not set by Hydra here; leave it out")
        if TARGET in key or (TARGET in value and key.lstrip("+") not in texts):
            if not CALLED.fullmatch(key):
                raise ConfigError(
                    f"{argument}: settings name no classes; leave {TARGET} out ({ALLOW} is for those in"
                    f" {', '.join(f'hydra.{part}' for part in CALLING)})"
                )
            if value not in allowed:
                raise ConfigError(refusal(key.lstrip("+"), value))


@contextmanager
def targets_checked(caller: Any, plain: Callable[[Any], Any], allowed: Collection[str]) -> Iterator[None]:
    """Within the context Hydra calls no class of a composed config, from whatever file, that is not allowed.

    caller: the module in which Hydra makes callbacks, the first it makes of a composed config; nothing public
    lies between the two. plain: makes plain data of a node of the config, with all that it refers to.
    """
    make = caller.Callbacks

    def checked(config: Any) -> Any:
        for part in CALLING:
            if config.hydra[part] is not None:
                check_targets(f"hydra.{part}", plain(config.hydra[part]), allowed)
        return make(config)

    caller.Callbacks = checked
    try:
        yield
    finally:
        caller.Callbacks = make


def check_targets(key: str, node: Any, allowed: Collection[str]) -> None:
    """Raise ConfigError for a class named in plain data that is not allowed. key: of the data.

    Launchers and sweepers are plugins, which Hydra loads from their packages alone; those need no word.
    """
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in children:
        here = f"{key}.{name}"
        if name != TARGET:
            check_targets(here, value, allowed)
        elif here in PLUGINS and not str(value).startswith(PLUGIN_PACKAGES):
            raise ConfigError(f"{here}: expected a plugin, in the package hydra_plugins, found {value!r}")
        elif here not in PLUGINS and str(value) not in allowed:
            raise ConfigError(refusal(here, value))


def refusal(key: str, name: object) -> str:
    """The line for a class that was not allowed."""
    return f"{key}: {name} is not called unless the command line says so: {ALLOW}=[{name}]"
