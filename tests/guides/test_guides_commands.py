"""Every command that a guide shows could be typed: modules, options, experiments and settings are there."""

from pathlib import Path

import pytest

from tests.guides.commands import check
from tests.guides.pages import DOCS, PAGES, ROOT, commands, words

# The log tells of commands that have gone since; those of extend/ need the files that its pages write:
# tests/documents runs them.
TODAY = [page for page in PAGES if page != DOCS / "log.md" and page.parent.name != "extend"]


@pytest.mark.parametrize("page", TODAY, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for line, command in commands(page):
        try:
            check(command)
        except (AssertionError, ValueError, SystemExit) as problem:
            said = capsys.readouterr().err.strip()
            wrong.append(f"{page.name}:{line}: {command}\n    {problem} {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "command",
    [
        "python -m trainer experiment=tiny/stage_a",
        "python -m train experiment=tiny/stag_a",
        "python -m train experiment=tiny/stage_a optim.lrr=1",
        "torchrun --nproc=2 -m train experiment=tiny/stage_a parallel=fspd",
        "torchrun --nprocesses=2 -m train experiment=tiny/stage_a",
        "sbatch --nodes=4 scripts/trainer.sbatch experiment=tiny/stage_a",
        "sbatch --nodes=4 scripts/train.sbatch experiment=tiny/stage_aa",
        "python -m inference stage_c.step=30",
        "python -m inference.app run=outputs/demo prot=8000",
        "python -m dataset_tools pack photos/ data/mine --max-sise 3",
        "python -m dataset_tools pakc photos/ data/mine",
        "python -m scripts.estimate experiment=tiny/stage_aa --gpu h100",
        "python -m scripts.merge a b --lorra c",
        "make dmeo",
        "pythonn -m train",
    ],
)
def test_a_mistake_is_noticed(command: str) -> None:
    with pytest.raises((AssertionError, ValueError, SystemExit)):
        check(command)


@pytest.mark.parametrize(
    "command",
    [
        'python -m train experiment=tiny/lora data.shards=data/me \'recipe.tokens={"[me]": "man|woman"}\'',
        "python -m train --multirun optim.lr=1e-4,5e-5 experiment=tiny/stage_a",
        "python -m train experiment=NAME no.such=setting",
        "python -m inference prompt='a [pillar], red' run=outputs/demo 'loras=[outputs/demo/lora]'",
        "python -m scripts.estimate experiment=train/stage_c_3_6b parallel=hsdp --gpus 128 --mfu 0.4",
        "python -m dataset_tools precompute data/mine data/four --versions 4 --config run.yaml data.flip=0.5",
        "pip install bitsandbytes",
    ],
)
def test_a_right_command_passes(command: str) -> None:
    check(command)


def test_comments_and_pipes_end_a_command() -> None:
    assert words("python -m train 'a=[b, c]'   # or d") == ["python", "-m", "train", "a=[b, c]"]
    assert words("python -m train --cfg job > x.yaml") == ["python", "-m", "train", "--cfg", "job"]
