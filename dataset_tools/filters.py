"""Filters on the json beside a picture: field, comparison, value. Plain data, no code."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


def _is_in(fact: Any, values: Any) -> bool:
    return fact in values


def _is_not_in(fact: Any, values: Any) -> bool:
    return fact not in values


COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": _is_in,
    "not_in": _is_not_in,
    "contains": operator.contains,
}
ORDERS = ("<", "<=", ">", ">=")
OPS = (*COMPARISONS, "exists")


@dataclass
class Filter:
    """One condition, for instance {field: width_px, op: ">=", value: 512}.

    op: one of OPS. value: what the field is compared with; a list for in and not_in; true or false for
    exists. A picture without the field fails every comparison but `exists: false`.
    """

    field: str
    op: str
    value: Any = None

    def accepts(self, facts: dict[str, Any]) -> bool:
        """Whether the facts of one picture meet the condition; facts of another type do not."""
        if self.op == "exists":
            return (self.field in facts) == self.value
        if self.field not in facts:
            return False
        try:
            return bool(COMPARISONS[self.op](_like(facts[self.field], self.value), self.value))
        except TypeError:
            return False

    def check(self) -> None:
        """Raise ValueError, in one line, for an unknown op or a value that it cannot use."""
        where = f"data.filters: {{field: {self.field}, op: {self.op!r}}}"
        if self.op not in OPS:
            nearest = get_close_matches(self.op, OPS, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}: unknown op; did you mean {nearest!r}? Known: {' '.join(OPS)}")
        if self.op in ("in", "not_in") and not isinstance(self.value, list | tuple):
            raise ValueError(f"{where}: value must be a list, found {self.value!r}")
        if self.op in ORDERS and (
            isinstance(self.value, bool) or not isinstance(self.value, int | float | str)
        ):
            raise ValueError(f"{where}: value must be a number or text, found {self.value!r}")
        if self.op == "exists" and not isinstance(self.value, bool):
            raise ValueError(f"{where}: value must be true or false, found {self.value!r}")


def _like(fact: Any, value: Any) -> Any:
    """The fact as a number if the value is one: facts that came from a csv are text."""
    if isinstance(fact, str) and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(fact)
        except ValueError:
            return fact
    return fact
