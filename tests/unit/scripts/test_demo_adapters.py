"""The demo of the adapters: its chain of commands, what is made of the scores, and the score of the LCM."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataset_tools.shapes import split_scenes, write_split
from modules.weights import find_weights, load_network, read_header, save_network
from scripts import demo_adapters
from scripts.adapter_scores import __main__ as scoring
from scripts.adapter_scores import amount, figure, figure_texts, is_met, lcm
from scripts.chain import run_chain
from scripts.demo import STAGES
from scripts.demo_adapters import ADAPTERS, commands

ROOT = Path(__file__).parents[3]


def test_every_adapter_has_an_experiment_and_a_score() -> None:
    for name, adapter in ADAPTERS.items():
        assert (ROOT / "configs" / "experiment" / "demo" / f"{name}.yaml").is_file()
        assert adapter.kind in scoring.kinds()
        assert set(adapter.networks.values()) <= set(STAGES)
    assert set(scoring.kinds()) == {adapter.kind for adapter in ADAPTERS.values()}


def test_everything_is_read_from_and_written_to_the_demos_folder() -> None:
    steps = commands(Path("elsewhere"))
    assert list(steps)[0] == "Draw the data of lora"
    assert list(steps)[-1] == "Judge lcm"
    for command in steps.values():
        assert not any("outputs/demo" in word for word in command)
        assert any("elsewhere/" in word for word in command)
    lora = steps["Train lora"]
    assert "data.shards=elsewhere/data/pillar/train" in lora
    assert "model.stage_c.weights=elsewhere/stage_c" in lora
    assert "recipe.regularisation.shards=elsewhere/data/train" in lora


def test_a_chain_skips_what_is_finished_and_stops_at_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note.py").write_text(
        "import sys; open('notes', 'a').write(sys.argv[1]); exit(int(sys.argv[2]))"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    record = tmp_path / "new" / "timings.json"
    steps = {"one": ["note", "a", "0"], "two": ["note", "b", "3"], "three": ["note", "c", "0"]}
    with pytest.raises(SystemExit) as stopped:
        run_chain(steps, record)
    assert stopped.value.code == 3
    assert "«two» ended with status 3" in capfd.readouterr().err
    assert list(json.loads(record.read_text())) == ["one"]
    steps["two"] = ["note", "B", "0"]
    seconds = run_chain(steps, record)
    assert (tmp_path / "notes").read_text() == "abBc"
    assert list(seconds) == list(steps)
    assert json.loads(record.read_text()) == seconds
    assert run_chain({"three": steps["three"]}, record) == {"three": seconds["three"]}
    assert (tmp_path / "notes").read_text() == "abBc"


def test_a_training_that_was_asked_to_end_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.py").write_text(
        "import json, sys; from pathlib import Path; folder = Path(sys.argv[1].removeprefix('run.dir='))\n"
        "starts = json.loads((folder / 'run.json').read_text())['starts'] if folder.exists() else []\n"
        "folder.mkdir(exist_ok=True); starts.append({'interrupted': not starts})\n"
        "(folder / 'run.json').write_text(json.dumps({'starts': starts}))"
    )
    monkeypatch.chdir(tmp_path / "own")
    record = tmp_path / "timings.json"
    steps = {"one": ["train", f"run.dir={tmp_path / 'run'}"]}
    with pytest.raises(SystemExit) as stopped:
        run_chain(steps, record)
    assert stopped.value.code == 130 and not record.exists()
    assert "started again, it goes on from here" in capfd.readouterr().err
    assert list(run_chain(steps, record)) == ["one"]


def test_figures_say_what_was_asked_and_whether_it_is_met() -> None:
    assert figure_texts(figure("drawn", 0.931, at_least=0.8)) == ("drawn", "≥ 80.0 %", "93.1 %")
    assert figure_texts(figure("told", 31.234, unit="dB")) == ("told", "", "31.2 dB")
    assert (amount(59, "s"), amount(125.4, "s"), amount(3, "")) == ("59 s", "2 min 05 s", "3")
    assert is_met(figure("", 0.8, at_least=0.8)) and not is_met(figure("", 0.79, at_least=0.8))
    assert is_met(figure("", 0.05, at_most=0.05)) and not is_met(figure("", 0.06, at_most=0.05))
    assert is_met(figure("", -5.0))


def test_the_page_shows_figures_and_pictures_of_every_adapter(tmp_path: Path) -> None:
    from PIL import Image

    for name in ADAPTERS:
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "sheet.png")
        lines = [figure(f"share of {name}", 0.5, at_least=0.25), figure("bad <one>", 0.5, at_least=0.75)]
        (folder / "scores.json").write_text(json.dumps({"figures": lines, "more": 1}))
    seconds = {f"Train {name}": 400.0 if name == "lora" else 100.0 for name in ADAPTERS}
    found = demo_adapters.gather(tmp_path, seconds)
    assert found["lcm"]["more"] == 1
    assert [is_met(line) for line in found["lora"]["figures"]] == [False, True, False]
    page = "\n".join(demo_adapters.sections(tmp_path, found))
    assert page.count("data:image/png") == len(ADAPTERS)
    assert page.count("not reached") == len(ADAPTERS) + 1
    for text in ("share of lcm", "6 min 40 s", "≤ 3 min 00 s", "bad &lt;one&gt;"):
        assert text in page


def test_without_the_demo_there_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["demo_adapters", "--out", str(tmp_path)])
    assert demo_adapters.main() == 2
    assert capsys.readouterr().err == f"error: {tmp_path} holds no trained Stage C; run `make demo` first\n"


@pytest.fixture
def distilled(tiny_runs: Path, tmp_path: Path) -> Path:
    """A folder of runs with held-out pictures and, in lcm, a student: its teacher, to be sampled as one."""
    for run in tiny_runs.iterdir():
        (tmp_path / run.name).symlink_to(run)
    write_split(tmp_path / "data" / "held_out", split_scenes()[1], 6, seed=1, varied=False)
    file = find_weights(tiny_runs, "stage_c")
    facts: dict[str, Any] = {k: v for k, v in read_header(file).items() if k not in ("network", "config")}
    facts["sampling"] = {"steps": 4, "guidance": 1.0, "sampler": "lcm"}
    (tmp_path / "lcm" / "weights").mkdir(parents=True)
    save_network(
        tmp_path / "lcm/weights/stage_c.safetensors", load_network(file, "stage_c"), "stage_c", facts
    )
    shutil.copytree(tiny_runs / "stage_c" / "text_encoder", tmp_path / "lcm" / "text_encoder")
    return tmp_path


def test_a_student_is_scored_against_its_teacher(
    distilled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"NUM_PROMPTS": 6, "MANY": 3, "FEW": (1, 4), "COLUMNS": 2}.items():
        monkeypatch.setattr(lcm, name, value)
    out = distilled / "adapters" / "lcm"
    assert scoring.main(["lcm", "--run", str(distilled / "lcm"), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "accuracy_by_steps.png",
        "scores.json",
        "sheet.png",
    ]
    scores = json.loads((out / "scores.json").read_text())
    asked = [line for line in scores["figures"] if "at_least" in line]
    assert [line["what"] for line in asked] == [
        f"{kind}: student, 4 steps" for kind in ("everything named", "colour and shape named")
    ]
    assert asked[0]["at_least"] == pytest.approx(scores["accuracy"]["teacher, full prompts, 3 steps"] - 0.03)
    assert len(scores["accuracy"]) == 10
    assert "student, 4 steps" in capsys.readouterr().out


def test_an_adapter_that_is_not_there_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scoring.main(["lcm", "--run", str(tmp_path / "lcm"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: data: the folder")
