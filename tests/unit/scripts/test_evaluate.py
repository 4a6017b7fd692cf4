"""What the evaluation measures, on pictures whose scores are known and on an untrained cascade."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.multimodal.clip_score import CLIPScore
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from dataset_tools.shapes import split_scenes, write_split
from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import Scene, all_scenes, draw
from dataset_tools.shards import ShardLimits, ShardWriter
from inference import Picture
from modules.tokenizer import make_tokenizer
from scripts import evaluate as evaluation
from scripts.scores import clip_score, fid, score_pairs, score_prompts

FAST = ["--stage-c", "steps=1", "--stage-b", "steps=1", "guidance=1"]
CLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held_out")
    write_split(folder, split_scenes()[1], 5, seed=1, varied=False)
    return folder


def drawn(scene: Scene, prompt: str) -> Picture:
    image = Image.fromarray(draw(scene, np.random.default_rng(0)))
    return Picture(image, {"prompt": prompt, "seed": 3})


def test_right_pictures_score_one() -> None:
    scenes = all_scenes()[::97]
    report = score_prompts(scenes, [drawn(scene, full_caption(scene)) for scene in scenes])
    assert report["num_pictures"] == len(scenes)
    assert set(report["accuracy"].values()) == {1.0}
    assert report["wrong"] == []


def test_wrong_attributes_are_counted_and_listed() -> None:
    asked = Scene("red", "circle", "large", "centre", "white")
    shown = asked._replace(colour="blue", place="top left")
    report = score_prompts([asked, asked], [drawn(asked, "right"), drawn(shown, "wrong")])
    accuracy = report["accuracy"]
    assert (accuracy["colour"], accuracy["shape"], accuracy["place"]) == (0.5, 1.0, 0.5)
    assert accuracy["colour_and_shape"] == accuracy["all_five"] == 0.5
    assert report["wrong"] == [
        {"prompt": "wrong", "seed": 3, "read": {"colour": "blue", "place": "top left"}}
    ]


def test_pairs_are_scored_in_decibels() -> None:
    original = torch.rand(3, 16, 16)
    scores = score_pairs([original + 0.1, original - 0.1], [original, original])
    assert scores["psnr"] == pytest.approx(20, abs=1e-3)
    assert 0 < scores["ssim"] < 1


def test_a_whole_report(tiny_runs: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.json"
    sizes = ["--num-samples", "7", "--num-reconstructions", "3", "--batch-size", "2"]
    assert (
        evaluation.main(["--run", str(tiny_runs), "--data", str(shards), "--out", str(out), *sizes, *FAST])
        == 0
    )
    report = json.loads(out.read_text())
    assert report["prompts"]["num_pictures"] == 7
    assert report["reconstruction"]["num_pictures"] == 3
    assert set(report["reconstruction"]["cascade"]) == {"psnr", "ssim"}
    released = {"guidance": 4.0, "shift": 2.0, "sampler": "ddpm", "rescale": 0.7}
    assert report["settings"]["stage_c"] == {"steps": 1, **released}  # what the files do not say
    assert report["settings"]["stage_b"]["guidance"] == 1
    assert {path.name for path in out.parent.iterdir()} == {
        "report.json",
        "samples.png",
        "reconstructions.png",
    }


def test_pictures_that_the_judge_does_not_know(tiny_runs: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "photos", ShardLimits(max_samples=10)) as writer:
        for number, size in enumerate([(38, 33), (32, 32), (38, 33)]):
            path = tmp_path / "x.png"
            Image.effect_noise(size, 90).convert("RGB").save(path)
            writer.write(
                f"photo_{number}",
                path.read_bytes(),
                "png",
                "a photo",
                {"width_px": size[0], "height_px": size[1]},
            )
    out = tmp_path / "report.json"
    arguments = [
        "--run",
        str(tiny_runs),
        "--data",
        str(tmp_path / "photos"),
        "--out",
        str(out),
        "--num-samples",
        "2",
    ]
    assert evaluation.main([*arguments, *FAST]) == 0
    report = json.loads(out.read_text())
    assert "prompts" not in report
    assert report["reconstruction"]["num_pictures"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "data: the folder nowhere does not exist"),
        ({"--run": "nowhere"}, "run: the folder nowhere does not exist"),
        ({"--num-samples": "0"}, "num_samples: expected at least 1, found 0"),
        ({"--stage-c": "step=3"}, "stage_c.step: unknown key; did you mean 'steps'?"),
        ({"--stage-c": "steps"}, "--stage-c: steps: expected KEY=VALUE"),
        ({"--stage-b": "steps=[1"}, "--stage-b: steps=[1: expected KEY=VALUE"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tiny_runs: Path,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    arguments = {"--run": str(tiny_runs), "--data": str(shards), "--out": str(tmp_path / "r.json"), **change}
    assert evaluation.main([word for pair in arguments.items() for word in pair]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_folder_without_shards_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no shards"):
        evaluation.read_folder(tmp_path, 10)


@pytest.fixture
def clip_folder(tmp_path: Path) -> str:
    """A very small, random CLIP model with its tokenizer."""
    tokenizer = make_tokenizer(["red"])
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**CLIP, **ids, "vocab_size": len(tokenizer)}
    config = CLIPConfig(text_config=text, vision_config={**CLIP, "image_size": 32, "patch_size": 16})
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


def test_clip_score_is_torchmetrics(clip_folder: str) -> None:
    """torchmetrics 1.9 expects bare features, which transformers 5 does not return; so they are unpacked."""

    class Unpacked(CLIPModel):
        def get_image_features(self, *args: Any, **keywords: Any) -> torch.Tensor:
            return super().get_image_features(*args, **keywords).pooler_output

        def get_text_features(self, *args: Any, **keywords: Any) -> torch.Tensor:
            return super().get_text_features(*args, **keywords).pooler_output

    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = CLIPProcessor(CLIPImageProcessor(**sizes), CLIPTokenizer.from_pretrained(clip_folder))
    parts = Unpacked.from_pretrained(clip_folder), processor
    metric = CLIPScore(lambda: parts)
    pictures = [drawn(scene, prompt) for scene, prompt in zip(all_scenes()[::300], "abcd", strict=True)]
    expected = [
        metric(torch.from_numpy(np.array(p.image)).permute(2, 0, 1), p.facts["prompt"]).item()
        for p in pictures
    ]
    assert clip_score(pictures, clip_folder) == pytest.approx(np.mean(expected), abs=0.1)


@pytest.mark.parametrize(
    ("score", "message"), [(clip_score, "clip_model: the folder"), (fid, "fid_weights: the file")]
)
def test_missing_weights_are_named(score: Callable[..., float], message: str) -> None:
    arguments = ([], "nowhere") if score is clip_score else ([], [], "nowhere")
    with pytest.raises(FileNotFoundError, match=f"{message} nowhere does not exist"):
        score(*arguments)


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    torch.save({"x": Picture}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="is no file of tensors"):
        fid([], [], str(tmp_path / "x.pth"))


def test_fid_is_the_distance_of_the_features_of_both_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With mean colours as features: the Inception network needs a download and minutes."""

    class MeanColours(torch.nn.Module):
        num_features = 3

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.double().mean((2, 3))

    def small(feature_extractor_weights_path: str) -> FrechetInceptionDistance:
        assert Path(feature_extractor_weights_path).is_file()
        return FrechetInceptionDistance(feature=MeanColours())

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", small)
    torch.save({}, tmp_path / "weights.pth")
    sets = [[drawn(scene, "").image for scene in all_scenes()[start::40]] for start in (0, 7)]
    x, y = (np.array([np.asarray(image).mean((0, 1)) for image in images]) for images in sets)
    spread = np.trace(np.cov(x.T) + np.cov(y.T) - 2 * sqrtm(np.cov(x.T) @ np.cov(y.T)).real)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + spread
    assert fid(*sets, str(tmp_path / "weights.pth")) == pytest.approx(expected, rel=1e-3)
