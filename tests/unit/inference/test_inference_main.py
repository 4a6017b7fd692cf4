"""The command line in this process: prompts that Hydra would misread, and errors of one line."""

from pathlib import Path

import pytest
import torch

from inference import __main__ as cli
from inference.config import Config

PROMPTS = [
    "a red circle",
    "a circle, red, on white",
    "it's (a: [b]) = {c}",
    "100% 'quoted' \"twice\"",
    "${run} and $5",
    "ends in a backslash\\",
    "two\nlines",
    "[pillar]",
    "[pillar] and [star]",
    "[me] in the snow, at night",
    "null",
    "7",
    "",
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The settings that would have been carried out."""
    configs: list[Config] = []
    monkeypatch.setattr(cli, "carry_out", configs.append)
    return configs


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_arrive_as_they_are_typed(seen: list[Config], prompt: str) -> None:
    assert cli.main([f"prompt={prompt}", f"negative_prompt={prompt}"]) == 0
    assert (seen[0].prompt, seen[0].negative_prompt) == (prompt, prompt)


def test_lists_and_other_values_are_hydras_affair(seen: list[Config]) -> None:
    assert cli.main(["prompt=['a, b',c]", "stage_c.guidance=[4,1]", "+seed=3"]) == 0
    assert seen[0].prompt == ["a, b", "c"]
    assert seen[0].stage_c.guidance == (4, 1)
    assert seen[0].seed == 3


def test_adapters_are_lists_and_settings(seen: list[Config]) -> None:
    arguments = ["loras=[a,{weights: b, weight: 0.5}]", "image_prompt={weights: ip, images: [x.png, y.png]}"]
    assert cli.main([*arguments, "controls=[{weights: c, image: z.png, end: 0.5}]", "margins.top_px=4"]) == 0
    [config] = seen
    assert [(lora.weights, lora.weight) for lora in config.loras] == [("a", 1.0), ("b", 0.5)]
    assert config.image_prompt.images == ("x.png", "y.png")
    assert config.controls[0].end == 0.5
    assert config.margins.top_px == 4


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("quantize=nf4", "nf4"),
        ("quantize.stage_b=int8", {"stage_b": "int8"}),
        ("quantize={stage_c: nf4, text_encoder: int8}", {"stage_c": "nf4", "text_encoder": "int8"}),
        ("quantize=null", None),
    ],
)
def test_bits_of_all_stages_or_of_some(seen: list[Config], argument: str, expected: object) -> None:
    assert cli.main([argument, "offload=block", "tile_px=512"]) == 0
    assert (seen[0].quantize, seen[0].offload, seen[0].tile_px) == (expected, "block", 512)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("promptt=x", "promptt: unknown key; did you mean 'prompt'?"),
        ("stage_c.step=3", "stage_c.step: unknown key; did you mean 'steps'?"),
        ("+stage_c.step=3", "stage_c.step: unknown key; did you mean 'steps'?"),
        ("stage_c.steps=many", "stage_c.steps: expected a whole number, found 'many'"),
        ("stage_c=3", "stage_c: expected settings (steps, guidance, shift, sampler, rescale), found 3"),
        ("seed=-1", "seed: expected a whole number from 0"),
        ("seed=[1,x]", "seed: expected a whole number or a list"),
        ("prompt=x", "run=<folder of runs>"),
        ("loras=[{weight: 1}]", "loras[0].weights: missing; expected text"),
        ("controls=[{weights: x, sale: 1}]", "controls[0].sale: unknown key; did you mean 'scale'?"),
        ("image_prompt.images=[a.png]", "image_prompt.weights: missing"),
        ("margins.left=3", "margins.left: unknown key; did you mean 'left_px'?"),
        ("run=nowhere", "run: the folder nowhere does not exist"),
        ("offload=true", "offload: found true; expected one of: block, none, stage"),
        ("quantize=nf5", "quantize: expected nf4 | int8 or settings, found 'nf5'"),
        ("tile_px=64", "tile_px: expected at least 256, found 64"),
        ("recreate=none.png", "the picture none.png does not exist"),
        ("seed=[", "seed=[: not a setting that can be read; a bracket or quote stays open"),
        ("run=${nothing}", "run: Interpolation key 'nothing' not found"),
        ("seed=1,2", "seed=1,2: several values; write [1,2] for a list, or add --multirun"),
        ("loras.x=3", "x: set in a list, whose parts have no names"),
        ("loras={weights: x}", "loras: {weights: x} is of another kind than what it replaces"),
        ("image_prompt=null", "image_prompt: expected settings (weights, images, scale), found null"),
        ("a red circle", "a red circle: no setting; expected KEY=VALUE"),
        ("--num_images=3", "settings are written without dashes: num_images=VALUE"),
        ("--config-name=x", "--config-name: x: no such config"),
        (f"output={__file__}", f"output: expected a folder, found the file {__file__}"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert cli.main([argument]) == 2
    written = capsys.readouterr().err
    assert written.startswith("error: ")
    assert message in written
    assert written.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(torch.OutOfMemoryError("CUDA"), 1, "offload=stage"), (KeyboardInterrupt(), 130, "stopped")],
)
def test_other_ends_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def fail(config: Config) -> None:
        raise error

    monkeypatch.setattr(cli, "carry_out", fail)
    assert cli.main(["prompt=x"]) == status
    written = capsys.readouterr().err
    assert message in written
    assert written.count("\n") == 1


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "stage_c:" in shown
    assert "hydra" not in shown


def test_the_config_file_is_the_repositorys() -> None:
    assert Path(__file__).parents[3] / "configs" / "inference.yaml" == cli.CONFIG_FILE
