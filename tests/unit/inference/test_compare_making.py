"""From a command line to pairs of pictures and a report, with real small networks."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from inference.compare.__main__ import main
from inference.compare.plan import Plan, choose, read_plan
from inference.compare.sides import match, merged, pictures_in
from inference.compare.votes import Ballot, Vote
from inference.pictures import open_picture
from inference.prompt_files import PromptLine
from modules.schema import ConfigError

PROMPTS = "Prompt\tCategory\tChallenge\tNote\na red circle\tShapes\tBasic\t\na blue square\tArts\tBasic\t\n"


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    (tmp_path / "prompts.tsv").write_text(PROMPTS)
    return str(tmp_path / "prompts.tsv")


def compare(runs: Path, folder: Path, prompts: str, *more: str, b: str = "") -> int:
    fewest = "stage_c: {steps: 1}, stage_b: {steps: 1}"
    a = f"{{run: {runs}, {fewest}}}"
    b = b or f"{{run: {runs}, {fewest}, ema: false}}"
    return main([a, b, f"prompts={prompts}", f"output={folder}", "page=false", *more])


def test_pictures_are_made_with_equal_seeds_and_only_once(
    tiny_runs: Path, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert compare(tiny_runs, folder, prompts, "images=2", "seed=5") == 0
    plan = read_plan(folder)
    assert [(q.prompt, q.category, q.seed) for q in plan.questions][:3] == [
        ("a red circle", "Shapes", 5),
        ("a red circle", "Shapes", 6),
        ("a blue square", "Arts", 5),
    ]
    for question in plan.questions:
        a, b = (open_picture(plan.picture(folder, side, question)) for side in ("A", "B"))
        assert [each.facts["seed"] for each in (a, b)] == [question.seed] * 2
        assert [each.facts["prompt"] for each in (a, b)] == [question.prompt] * 2
        assert a.image.tobytes() != b.image.tobytes()  # other weights
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    gone = folder / "b" / "00002.png"
    pixels = Image.open(gone).tobytes()
    gone.unlink()
    capsys.readouterr()
    assert compare(tiny_runs, folder, prompts, "images=2", "seed=5") == 0
    assert (
        "B: " in (told := capsys.readouterr().err)
        and "1 pictures, 3 there already" in told
        and "A: " not in told
    )
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert {path for path in before if before[path] != after[path]} == {gone}
    assert abs(len(pixels) - len(Image.open(gone).tobytes())) == 0


def test_another_comparison_in_the_folder_is_not_mixed_in(
    tiny_runs: Path, tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert compare(tiny_runs, folder, prompts) == 0
    assert compare(tiny_runs, folder, prompts, "seed=1") == 2
    assert "holds another comparison" in capsys.readouterr().err
    assert compare(tiny_runs, folder, prompts, "guidance=2") == 2
    assert "A: stage_c: not as when" in capsys.readouterr().err
    assert compare(tiny_runs, folder, prompts, "batch_size=1") == 0  # which is no matter of pictures
    note = folder / "a" / "made_with.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"weights": {"stage_c": "0"}}))
    capsys.readouterr()
    assert compare(tiny_runs, folder, prompts) == 2
    assert "A: weights: not as when" in capsys.readouterr().err
    note.write_text("{")
    assert compare(tiny_runs, folder, prompts) == 2
    assert "made_with.json: damaged" in capsys.readouterr().err


def test_a_folder_of_pictures_is_a_side(tiny_runs: Path, tmp_path: Path, prompts: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (20, 10), "red").save(other / "A Blue Square.jpg")
    lying = Image.Exif()
    lying[0x0112] = 6  # a photo whose camera was turned by a quarter
    Image.new("RGB", (20, 10), "lime").save(other / "a-red-circle_0.webp", lossless=True, exif=lying)
    folder = tmp_path / "out"
    assert compare(tiny_runs, folder, prompts, b=str(other)) == 0
    upright = Image.open(folder / "b" / "00000.png")
    assert upright.size == (10, 20) and upright.getpixel((5, 5)) == (0, 255, 0)
    assert Image.open(folder / "b" / "00001.png").getpixel((5, 5))[0] > 200


def test_settings_of_both_sides_come_below_a_sides_own(tiny_runs: Path, tmp_path: Path, prompts: str) -> None:
    settings = tmp_path / "b.yaml"
    settings.write_text(f"run: {tiny_runs}\nstage_b: {{steps: 1}}\n")
    folder = tmp_path / "out"
    assert compare(tiny_runs, folder, prompts, "steps=2", "guidance=3", "num=1", b=str(settings)) == 0
    a, b = (open_picture(folder / side / "00000.png").facts["stage_c"] for side in ("a", "b"))
    assert (a["steps"], b["steps"]) == (1, 2)
    assert a["guidance"] == b["guidance"] == 3
    assert merged({"x": {"y": 1, "z": 2}}, {"x": {"y": 3}}) == {"x": {"y": 3, "z": 2}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"b": "no/such/folder"}, "B: no/such/folder does not exist"),
        ({"b": "{run: x, seed: 3}"}, "B: seed: the same for both sides"),
        ({"b": "{run: x, task: inpaint}"}, "B: task: expected text_to_image"),
        ({"b": "{run: x, stepps: 3}"}, "B: stepps: unknown key"),
        ({"b": "{run: x, stage_c: {steps: 0}}"}, "B: stage_c.steps: "),
        ({"b": "[1"}, "B: [1 does not exist"),
        ({"b": "{run: [}"}, "cannot be read as YAML"),
        ({"b": "README.md"}, "B: README.md: expected a folder"),
        ({"b": "docs"}, "B: docs: holds neither weights of a run nor pictures"),
        ({"prompts": "no.tsv"}, "prompts: no.tsv does not exist"),
        ({"more": "num=0"}, "num: expected at least 1"),
        ({"more": "sed=3"}, "sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_mistakes_are_one_line(
    changes: dict[str, str],
    words: str,
    tiny_runs: Path,
    tmp_path: Path,
    prompts: str,
    capsys: pytest.CaptureFixture,
) -> None:
    more = [changes["more"]] if "more" in changes else []
    status = compare(
        tiny_runs, tmp_path / "out", changes.get("prompts", prompts), *more, b=changes.get("b", "")
    )
    told = capsys.readouterr().err
    assert status == 2 and words in told and told.count("\n") == 1


def test_pictures_are_matched_by_name_or_by_order(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    assert [path.stem for path in pictures_in(tmp_path)] == ["1", "2", "10"]
    wanted = [("a cat", 0), ("a dog", 0), ("a cow", 0)]
    assert [path.stem for path in match(tmp_path, wanted)] == ["1", "2", "10"]
    with pytest.raises(ConfigError, match=r"3 pictures for 2 prompts, and none is called a-cat\.png"):
        match(tmp_path, wanted[:2])
    for name in ("a-cow_1", "a-cow_0", "a-cat", "A Dog"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert [path.stem for path in match(tmp_path, wanted)] == ["a-cat", "A Dog", "a-cow_0"]


def test_prompts_are_drawn_evenly_from_the_categories() -> None:
    lines = [PromptLine(i, f"p{i}", {"Category": "rare" if i < 3 else "common"}) for i in range(100)]
    for num in (4, 10, 50):
        found = choose(lines, num, 0)
        counts = Counter(line.fields["Category"] for line in found)
        assert counts == {"rare": min(3, num // 2), "common": num - min(3, num // 2)}
        assert [line.line for line in found] == sorted({line.line for line in found})
    assert choose(lines, 10, 0) == choose(lines, 10, 0) != choose(lines, 10, 1)
    assert choose(lines, None, 0) == lines == choose(lines, 1000, 0)


def test_the_report_counts_the_votes(
    tmp_path: Path, prompts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{i}.png")
    sides = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*sides, f"prompts={prompts}", f"output={folder}", "page=false"]) == 0
    plan: Plan = read_plan(folder)
    ballot = Ballot(folder, plan)
    for voter in ("Eva", "<b>Adam"):
        for question in plan.questions:
            ballot.add(Vote(voter, question.number, "looks", "A", False))
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    assert "looks: A is preferred in 100%" in capsys.readouterr().out
    plain = json.loads((folder / "report.json").read_text())
    assert plain["rates"]["looks"]["all"]["wins_a"] == 4 and plain["rates"]["looks"]["Shapes"]["votes"] == 2
    assert "Wilson" in plain["method"] and plain["A"] == sides[0]
    page = (folder / "report.html").read_text()
    assert (
        "&lt;b&gt;Adam" in page
        and "<b>Adam" not in page
        and "http" not in page.replace("http://www.w3.org", "")
    )
    assert (folder / "report.svg").read_text().startswith("<svg")


def test_folders_without_a_comparison_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("report", "vote"):
        assert main([command, str(tmp_path)]) == 2
        assert "no comparison there" in capsys.readouterr().err
        (tmp_path / "comparison.json").write_text("{")
        assert main([command, str(tmp_path)]) == 2
        assert "damaged" in capsys.readouterr().err
        os.remove(tmp_path / "comparison.json")
    assert main([]) == 2 and main(["--help"]) == 0
