"""A picture can be made again from its metadata: same batch shape, same weights, same pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference import Cascade, Picture, StageSettings, open_picture, write_picture
from inference.config import Config
from inference.facts import read_facts
from inference.networks import fingerprint
from inference.recreate import recreate

FAST = {"stage_c": StageSettings(steps=2, guidance=(4.0, 2.0)), "stage_b": StageSettings(steps=2)}


@pytest.fixture
def written(tiny_runs: Path, tmp_path: Path) -> Path:
    """The third picture of a batch of three."""
    cascade = Cascade.load(str(tiny_runs), device="cpu")
    pictures = cascade.generate(["a red circle", "blue", "a square"], [1, 2, 3], **FAST)
    return write_picture(pictures[2], tmp_path)


def test_the_same_pixels(written: Path) -> None:
    picture, verdict = recreate(Config(recreate=str(written)))
    assert verdict == "the same pixels"
    with Image.open(written) as original:
        assert np.array_equal(np.asarray(picture.image), np.asarray(original))
    assert picture.facts["batch"] == {"rows": 3, "row": 2}


def test_facts_name_all_that_decides_the_pixels(written: Path, tiny_runs: Path) -> None:
    facts = recreate(Config(recreate=str(written)))[0].facts
    assert facts["run"] == str(tiny_runs)
    assert set(facts["fingerprints"]) == {"stage_a", "stage_b", "stage_c"}
    stage_a = tiny_runs / "stage_a" / "weights" / "stage_a_ema.safetensors"
    assert facts["fingerprints"]["stage_a"] == fingerprint(stage_a)
    assert (facts["dtype"], facts["device"], facts["threads"]) == ("fp32", "cpu", torch.get_num_threads())
    assert set(facts["versions"]) == {"kaskade", "torch"}


def test_other_weights_are_used_when_named_and_told(written: Path, tiny_runs: Path) -> None:
    _, verdict = recreate(Config(recreate=str(written), run=str(tiny_runs), ema=False))
    assert verdict == "the pixels differ; no longer the same: fingerprints"


def test_what_the_picture_decides_is_refused(written: Path) -> None:
    with pytest.raises(ValueError, match="stage_b: recreate takes this from the picture"):
        recreate(Config(recreate=str(written), stage_b=StageSettings(steps=3)))


def test_a_changed_image_is_told(tiny_runs: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_noise((32, 32), 90).save(photo)
    cascade = Cascade.load(str(tiny_runs), device="cpu")
    made = cascade.generate("a", task="reconstruct", image=str(photo), **FAST)
    path = write_picture(made[0], tmp_path)
    assert recreate(Config(recreate=str(path)))[1] == "the same pixels"
    Image.effect_noise((32, 32), 90).save(photo)
    assert recreate(Config(recreate=str(path)))[1] == "the pixels differ; no longer the same: pictures_sha256"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strength", "high"),
        ("seed", -1),
        ("task", "paint"),
        ("weights", {"stage_a": 3}),
        ("batch", {"rows": 2, "row": 2}),
        ("batch", {"rows": 10**6}),
        ("threads", 0),
        ("threads", 10**6),
    ],
)
def test_damaged_facts_are_refused_in_one_line(
    written: Path, tmp_path: Path, key: str, value: object
) -> None:
    picture = open_picture(written)
    path = write_picture(Picture(picture.image, {**picture.facts, key: value}), tmp_path)
    with pytest.raises(ValueError, match=rf"^{key}[a-z_.]*: (expected|found)") as error:
        recreate(Config(recreate=str(path)))
    assert "\n" not in str(error.value)


def test_missing_facts_are_named(written: Path) -> None:
    facts = open_picture(written).facts
    del facts["weights"]
    with pytest.raises(ValueError, match="^weights: missing"):
        read_facts(facts)


def test_fingerprints_notice_a_change_at_any_place(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = bytearray(np.random.default_rng(0).bytes(3_000_000))
    path.write_bytes(content)
    before = fingerprint(path)
    for place in (0, 1_234_567, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        assert fingerprint(path) != before


def test_nothing_is_fetched_because_a_picture_says_so(written: Path, tmp_path: Path, monkeypatch) -> None:
    original = open_picture(str(written))
    weights = {"text_encoder": "stranger/encoder"}
    sent = Picture(original.image, {**original.facts, "weights": weights})
    path = write_picture(sent, tmp_path / "sent")
    monkeypatch.setattr("modules.encoders.load", pytest.fail)
    with pytest.raises(FileNotFoundError, match="a file names the encoder 'stranger/encoder'.*not here"):
        recreate(Config(recreate=str(path)))
