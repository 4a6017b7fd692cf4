"""Command lines whose mistakes are one line, naming the option and, of a typo, the right one."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from modules.schema import KINDS, nearest, one_line


class Parser(argparse.ArgumentParser):
    """A parser that says mistakes in one line on stderr and exits with status 2.

    Its description is printed as it is written, options are written in full.
    """

    def __init__(self, **keywords: Any) -> None:
        keywords.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**keywords, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {one_line(in_words(message))}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its parent's; an unknown option is found before what is missing because of it."""
        arguments = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:  # else the command's own parser will look
            self._check_options(arguments)
        return super().parse_known_args(arguments, namespace)

    def _check_options(self, arguments: Sequence[str]) -> None:
        known = self._option_string_actions
        for argument in arguments:
            name = argument.partition("=")[0]
            if argument == "--":
                return
            if name.startswith("--") and name not in known:
                names = [option for option in known if option.startswith("--")]
                self.error(f"{name}: no such option; {nearest(name, names)}")


def in_words(message: str) -> str:
    """A message of argparse without the names of Python's types, with the nearest of several choices."""
    for name, kind in (("int", "a whole number"), ("float", "a number")):
        message = message.replace(f"invalid {name} value: ", f"expected {kind}, found ")
    if choice := re.fullmatch(r"(?:argument )?(.*): invalid choice: '(.*)' \(choose from (.*)\)", message):
        choices = re.findall(r"[^', ]+", choice[3])
        return f"{choice[1]}: found '{choice[2]}'; {nearest(choice[2], choices)}"
    return message


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """For `type=`: a finite number above 0, of this kind."""

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"expected {KINDS[kind]} above 0, found {text!r}")
        return number

    return parse
