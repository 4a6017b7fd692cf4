"""The options of Hydra that a command line may have, put in an order that Hydra takes."""

from collections.abc import Sequence

from modules.schema import ConfigError, nearest

CONTENTS = ("job", "hydra", "all")
VALUED: dict[str, Sequence[str]] = {  # the options with a value; which values, where there are few
    **dict.fromkeys(("--cfg", "-c"), CONTENTS),
    **dict.fromkeys(("--package", "-p", "--config-path", "-cp", "--config-name", "-cn"), ()),
    **dict.fromkeys(("--config-dir", "-cd"), ()),
}
INFO = ("--info", "-i")  # its value may be left out
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
OPTIONS = (  # but for --experimental-rerun, which unpickles a file
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"),
    *("--shell-completion", "-sc", *VALUED, *INFO),
)


def options_last(arguments: Sequence[str]) -> list[str]:
    """The same settings and options, the settings first: Hydra takes none behind an option.

    Raises ConfigError for an option that there is not, or without its value.
    """
    settings: list[str] = []
    options: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if not argument.startswith("-"):
            settings.append(argument)
            continue
        name, equals, value = argument.partition("=")
        if name not in OPTIONS:
            raise ConfigError(f"{name}: no such option; {_meant(name)}")
        if equals and name not in VALUED and name not in INFO:
            raise ConfigError(f"{argument}: {name} takes no value")
        if name in VALUED and not equals:
            if not left or "=" in left[0] or left[0].startswith("-"):
                raise ConfigError(f"{name}: a value is missing; expected {' | '.join(VALUED[name]) or 'one'}")
            value = left.pop(0)
        elif name in INFO and not equals:
            value = left.pop(0) if left and left[0] in INFOS else INFOS[0]
        if (few := INFOS if name in INFO else VALUED.get(name)) and value not in few:
            raise ConfigError(f"{name}: found {value!r}; {nearest(value, few)}")
        options += [name, value] if name in VALUED or name in INFO else [argument]
    return settings + options


def _meant(name: str) -> str:
    """What a wrong option may have been meant for: another, or a setting."""
    if not name.startswith("--"):
        return nearest(name, OPTIONS)
    options = [option.lstrip("-") for option in OPTIONS if option.startswith("--")]
    if (hint := nearest(name.lstrip("-"), options)).startswith("did you mean '"):
        return hint.replace("'", "'--", 1)
    return f"settings are written without dashes: {name.lstrip('-').replace('-', '_')}=VALUE"
