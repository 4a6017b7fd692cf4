"""What lines of a file of prompts ask for, without any network."""

from pathlib import Path
from typing import Any

import pytest

from inference.config import Config
from inference.lines import Problem, plan_lines
from inference.manifest import check_manifest, write_manifest
from inference.prompt_files import PromptLine
from inference.settings import StageSettings


def fields_of(**fields: Any) -> list[PromptLine]:
    return [PromptLine(7, "a cup", fields)]


def test_names_come_from_line_prompt_and_seed() -> None:
    lines = [PromptLine(1, "a Red, circle"), PromptLine(12, "a Red, circle")]
    planned, problems = plan_lines(Config(num_images=2, negative_prompt="dull"), lines)
    names = ["a-red-circle_0.png", "a-red-circle_1.png"]
    assert [each.file for each in planned] == [
        f"{line}_{name}" for line in ("000001", "000012") for name in names
    ]
    assert {each.request.negative_prompt for each in planned} == {"dull"}
    assert problems == []


def test_a_line_has_settings_of_its_own() -> None:
    config = Config(stage_c=StageSettings(steps=9), width_px=64)
    fields = {"seed": [3, 4], "height_px": 32, "stage_c.guidance": 2, "Category": "Arts", "task": "preview"}
    planned, _ = plan_lines(config, fields_of(**fields))
    assert [each.request.seed for each in planned] == [3, 4]
    request = planned[0].request
    assert (request.width_px, request.height_px, request.task) == (64, 32, "preview")
    assert (request.stage_c.steps, request.stage_c.guidance) == (9, 2)
    assert planned[0].notes == {"Category": "Arts"}


def test_cells_of_a_table_are_read_as_settings() -> None:
    fields = {"seed": "5", "loras": "[a, {weights: b, weight: 0.5}]", "negative_prompt": "7", "image": "3"}
    [each] = plan_lines(Config(task="image_to_image"), fields_of(**fields))[0]
    assert (each.request.seed, each.request.negative_prompt, each.request.image) == (5, "7", "3")
    assert [lora.weight for lora in each.request.loras] == [1.0, 0.5]


def test_pictures_with_one_seed_have_names_of_their_own() -> None:
    planned, _ = plan_lines(Config(), fields_of(image=["x.png", "y.png"], seed=1))
    assert [each.file for each in planned] == ["000007_a-cup_1.png", "000007_a-cup_1_2.png"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wdith_px": 3}, "wdith_px: no setting of a line; did you mean 'width_px'?"),
        ({"run": "x"}, "run: no setting of a line; "),
        ({"width_px": "wide"}, "width_px: expected a whole number"),
        ({"seed": "["}, "seed: cannot be read: '['"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"stage_c.stpes": 3}, "stage_c.stpes: unknown key"),
        ({"num_images": 10**12}, "num_images: expected at most"),
    ],
)
def test_a_line_that_cannot_be_understood_is_told_alone(fields: dict[str, Any], message: str) -> None:
    planned, problems = plan_lines(Config(), [*fields_of(**fields), PromptLine(8, "fine")])
    assert [each.line for each in planned] == [8]
    [problem] = problems
    assert problem.line == 7
    assert problem.message.startswith(message)


def test_a_folder_of_other_pictures_is_refused(tmp_path: Path) -> None:
    def check(config: Config, *prompts: str) -> None:
        lines = [PromptLine(number, prompt) for number, prompt in enumerate(prompts, start=1)]
        check_manifest(tmp_path, plan_lines(config, lines)[0], config)

    planned, _ = plan_lines(Config(), [PromptLine(1, "a"), PromptLine(2, "b")])
    write_manifest(tmp_path, planned, [Problem(3, "no")], Config())
    check(Config(width_px=64), "x")  # nothing is made yet
    (tmp_path / planned[0].file).touch()
    check(Config(), "a", "b", "and more")
    check(Config(device="cpu", offload="stage"), "a")
    with pytest.raises(ValueError, match="000001_a_0.png, for which no line asks"):
        check(Config(), "b")
    with pytest.raises(ValueError, match="000001_a_0.png was made with settings {}, now {width_px: 64}"):
        check(Config(width_px=64), "a")
    with pytest.raises(ValueError, match="pictures made with batch_size=4, now 2"):
        check(Config(batch_size=2), "a")
    (tmp_path / "manifest.jsonl").write_text('{"file": "000001_a_0.png"}\n')
    with pytest.raises(ValueError, match="manifest.jsonl cannot be read; name another folder"):
        check(Config(), "a")
