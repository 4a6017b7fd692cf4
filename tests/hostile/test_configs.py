"""Broken settings, made at random: one line that names the key, and of a typo the right name; status 2.

`python -m tests.hostile.test_configs 500` tries so many on every command.
"""

import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from inference import __main__ as draw
from inference.pipeline import Cascade
from tests.hostile.broken_configs import Broken, broken, broken_request
from train import __main__ as train
from train.config import Config
from train.recipes import make_recipe

CONFIGS = train.CONFIGS
SHORT, LONG = 25, 500


class Accepted(Exception):
    """The settings were found to be fine."""


def accept(*_: Any, **__: Any) -> None:
    raise Accepted


def accept_training(config: Config, *_: Any) -> None:
    make_recipe(config)
    raise Accepted


def composed(experiment: str, shards: Path) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        settings = compose("train", [f"experiment={experiment}", f"data.shards={shards}"])
    return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]


def problem(main: Any, arguments: list[str], mistake: Broken) -> str | None:
    """What is wrong with what a command says about a mistake; None: nothing."""
    said, sys.argv = io.StringIO(), ["command"]
    started = time.monotonic()
    try:
        with contextlib.redirect_stderr(said):
            status = main(arguments)
    except Accepted:
        return f"{mistake.arguments}: taken for fine"
    line = said.getvalue().strip()
    if status != 2 or "\n" in line or not line.startswith("error: "):
        return f"{mistake.arguments}: expected one line and status 2, found {status}, {line!r}"
    if absent := [word for word in mistake.said if word not in line]:
        return f"{mistake.arguments}: {absent} not in {line!r}"
    took = time.monotonic() - started
    return f"{mistake.arguments}: took {took:.1f} s" if took > 60 else None


def try_training(seeds: range, folder: Path) -> list[str]:
    """The problems with mistakes of these seeds; every seed takes the next experiment."""
    experiments, found = train.experiments(), []
    plains: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        name = experiments[seed % len(experiments)]
        plain = plains.setdefault(name, plains.get(name) or composed(name, folder))
        loaded = [key for key, entry in plain["model"].items() if entry.get("weights")]
        files = [f"model.{key}.weights={folder}" for key in loaded]
        mistake = broken(seed, plain)
        arguments = [f"experiment={name}", f"data.shards={folder}", *files, *mistake.arguments]
        if said := problem(train.main, arguments, mistake):
            found.append(f"{seed}: {name}: {said}")
    return found


def try_drawing(seeds: range, folder: Path) -> list[str]:
    """The same for `python -m inference`."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(draw.CONFIG_FILE))
    plain = {key: value for key, value in plain.items() if key not in ("hydra", "defaults")}
    found = []
    for seed in seeds:
        mistake = broken_request(seed, plain)
        if said := problem(draw.main, [f"run={folder}", "prompt=a cat", *mistake.arguments], mistake):
            found.append(f"{seed}: {said}")
    return found


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder; within the test, commands stop where all settings are checked."""
    stop(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command"])
    return tmp_path


def stop(patch: Any) -> None:
    patch(train, "make_session", accept_training)
    patch(train, "join", lambda *_: None)
    patch(Cascade, "load", accept)


def test_a_mistake_in_the_settings_of_a_training_is_one_line(stopped: Path) -> None:
    assert not try_training(range(SHORT), stopped)


def test_a_mistake_in_the_settings_of_pictures_is_one_line(stopped: Path) -> None:
    assert not try_drawing(range(SHORT), stopped)


if __name__ == "__main__":
    import os
    import tempfile

    number = int(sys.argv[1]) if len(sys.argv) > 1 else LONG
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        stop(setattr)
        began = time.monotonic()
        problems = try_training(range(number), Path(name)) + try_drawing(range(number), Path(name))
    print(*problems, sep="\n")
    print(f"{2 * number} broken settings, {len(problems)} problems, {time.monotonic() - began:.0f} s")
    sys.exit(bool(problems))
