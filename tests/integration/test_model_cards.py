"""Every training leaves a model card, which tells the run and nothing of the machine."""

import csv
import getpass
import json
import os
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.model_card import main
from scripts.released.table import licences
from tests.integration.recipe_cases import GDF, RECIPES, SAMPLING
from train.config import config_from_plain
from train.loop import run
from train.reports.card import card
from train.reports.card_names import called
from train.reports.card_use import ABOUT, commands

CONFIGS = Path(__file__).parents[2] / "configs"
LORA: dict[str, Any] = {
    "recipe": {"name": "lora", "layers": {"*.attn.*": 2}, "base": {"name": "stage_c", "sampling": SAMPLING}}
}
CASES = ("stage_a", "stage_b", "stage_c", "lora")  # in this order: the last one is of the one before


def settings(name: str, shards: Path, folder: Path) -> dict[str, Any]:
    own = LORA | {"gdf": GDF} if name == "lora" else RECIPES[name]
    if name == "lora":
        weights = {"weights": str(folder / "stage_c" / "weights" / "stage_c.safetensors")}
        own = own | {"model": RECIPES["stage_c"]["model"] | {"stage_c": weights}}
    data = {"shards": str(shards), "image_size_px": 32, "aspect_ratios": ["1/1"], "batch_size": 2}
    return {
        **own,
        "name": f"mine/{name}",
        "run": {
            "dir": str(folder / name),
            "num_steps": 2,
            "log_every": 1,
            "save_every": 2,
            "sample_every": 2,
            "num_samples": 1,
            "device": "cpu",
        },
        "data": {**data, "num_workers": 0, "split": "samples"},
    }


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each."""
    folder = tmp_path_factory.mktemp("somewhere") / "runs"
    for name in CASES:
        run(config_from_plain(settings(name, shards, folder)))
    return folder


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_training_leaves_a_card_with_its_figures_and_sample_sheet(runs: Path, name: str) -> None:
    text = text_of(runs / name)
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["library_name"] == "kaskade" and facts["license"] == "unknown" and "base_model" not in facts
    assert body.strip().startswith(f"# mine/{name}".replace("_", r"\_"))
    with (runs / name / "metrics.csv").open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    loss = next(key for key in last if key.split("/")[-1] == "loss")
    row = next(line for line in body.splitlines() if line.startswith(f"| `{loss}` |"))
    assert float(row.split("|")[3]) == pytest.approx(float(last[loss]), rel=1e-3)
    (sheet,) = re.findall(r"!\[.*\]\((.*)\)", body)
    assert (runs / name / sheet).is_file()
    assert "recipe.name` | " + name.replace("_", r"\_") in body and "Nothing was left out." in body


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_the_machine_is_in_it(runs: Path, shards: Path, name: str) -> None:
    text = text_of(runs / name)
    for secret in (str(runs.parent), str(shards.parent), str(Path.home()), socket.gethostname()):
        assert secret not in text
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", text)
    assert f"| {shards.name} | 1 |" in text  # by its name


@pytest.mark.parametrize("name", CASES)
def test_its_commands_name_the_run_and_what_it_needs(runs: Path, name: str) -> None:
    (block,) = re.findall(r"```\n(.*?)```", text_of(runs / name), re.DOTALL)
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"]
        assert words[2] in ("inference", "scripts.convert_checkpoint")
    assert any(name in word for line in block.splitlines() for word in shlex.split(line)[3:])
    # At the end of the first, the other stages were not there yet.
    assert ("run=runs" in block) == (name in ("stage_c", "lora"))


def test_it_can_be_made_anew_after_an_evaluation(runs: Path, tmp_path: Path, capsys: Any) -> None:
    folder = runs / "stage_c"
    (folder / "report.json").write_text(
        json.dumps({"run": "x", "settings": {"a": 1}, "prompts": {"right": 0.25, "wrong": []}})
    )
    assert main([str(folder), "--out", str(tmp_path / "card.md")]) == 0
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "| `prompts.right` | 0.25 |" in text and "settings.a" not in text
    assert "prompts.right" not in text_of(folder)
    os.utime(folder / "report.json", (0, 0))  # as of an earlier training in this folder
    assert "prompts.right" not in card(folder)
    (folder / "report.json").unlink()
    capsys.readouterr()
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "no run's folder" in said and said.count("\n") == 1


def test_released_weights_and_their_licence_are_named(runs: Path, tmp_path: Path) -> None:
    changed = yaml.safe_load((runs / "lora" / "config.yaml").read_text(encoding="utf-8"))
    changed["model"]["stage_c"]["weights"] = "/home/somebody/models/stage_c.safetensors"
    changed["data"]["shards"] = ["s3://key:word@bucket/mine?token=1", "pipe:cat x"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    record = json.loads((runs / "lora" / "run.json").read_text(encoding="utf-8"))
    record["starts"][-1] |= {"step": 1, "left_out": {"no caption": 3}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    text = card(tmp_path)
    facts = yaml.safe_load(text.split("---\n")[1])
    assert facts["base_model"] == "stabilityai/stable-cascade" and facts["license"] == "other"
    assert facts["license_link"] == licences()["stable-cascade-nc-community"].url
    assert "Non-Commercial Research Community License" in text and "`stage_c.safetensors`" in text
    assert (
        not {"somebody", "word", "token", "cat x"} & set(re.split(r"\W+", text)) and "mine, a command" in text
    )
    assert "stopped after step 1 of 2" in text and "| no caption | 3 |" in text
    assert "No metrics were kept." in text and "CASCADE" in text


@pytest.mark.parametrize("was_interrupted", [False, True])
def test_a_training_whose_epochs_are_all_read_is_complete(
    runs: Path, tmp_path: Path, was_interrupted: bool
) -> None:
    changed = yaml.safe_load((runs / "stage_a" / "config.yaml").read_text(encoding="utf-8"))
    changed["data"]["epochs"], changed["run"]["num_steps"] = 1, 1000
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    record = json.loads((runs / "stage_a" / "run.json").read_text(encoding="utf-8"))
    record["starts"][-1] |= {"interrupted": was_interrupted}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    text = card(tmp_path)
    for words in ("stopped after step 2 of 1000", "The training is not complete."):
        assert (words in text) == was_interrupted


def test_a_damaged_record_is_one_line(runs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.yaml").write_bytes((runs / "lora" / "config.yaml").read_bytes())
    for damage in ("{", '{"starts": []}', '{"starts": 3}'):
        (tmp_path / "run.json").write_text(damage)
        assert main([str(tmp_path)]) == 2
        assert "run.json: not the record of a run" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ABOUT)
def test_every_recipe_has_commands(recipe: str) -> None:
    lines = commands(recipe, "stage_c", "outputs/mine/it", "outputs/mine")
    assert lines and all("outputs/mine" in line for line in lines)
    assert any("outputs/mine/it" in line for line in lines)
    assert sorted(ABOUT) == sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("data/mine", "data/mine"),
        ("/home/anna/data/mine", "mine"),
        ("../secret/mine", "mine"),
        ("~/mine", "mine"),
        ("s3://key:word@bucket/a/mine?token=x", "mine"),
        (r"C:\Users\anna\mine", "mine"),
        ("pipe:curl -H secret x", "a command"),
        ("/data/{000000..000099}.tar", "{000000..000099}.tar"),
    ],
)
def test_places_go_by_their_names(place: str, name: str) -> None:
    assert called(place) == name
