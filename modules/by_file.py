"""Classes by the names of their files: a new one is a new file, and no list has to be told of it."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any


def classes_by_file(package: str, path: Iterable[str], is_one: Callable[[type], bool]) -> dict[str, Any]:
    """File name -> the class that `is_one` says yes to, of those that the file itself defines.

    package, path: `__name__` and `__path__` of the folder's package, all files of which are loaded. Files
    without such a class are left out; ValueError names a file with several.
    """
    found: dict[str, Any] = {}
    for file in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{package}.{file.name}")
        own = [v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == module.__name__]
        kinds = [value for value in own if is_one(value)]
        if len(kinds) > 1:
            names = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{module.__file__}: expected one class to be called {file.name}, found {names}")
        if kinds:
            found[file.name] = kinds[0]
    return found
