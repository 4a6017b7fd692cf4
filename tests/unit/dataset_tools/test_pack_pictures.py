"""`pack`: every kind of file and folder is packed as it should be, or listed with the reason."""

import os
import shutil
import sys
from io import BytesIO

import pytest
from PIL import Image

from dataset_tools.images import open_image
from tests.unit.dataset_tools.pack_cases import contents, pack, report, samples, save


def test_unreadable_pictures_are_listed_and_counted_and_not_fatal(photos, tmp_path, capsys):
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.JPG").write_text("hello")
    whole = save(tmp_path / "whole.jpg", (200, 200)).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.symlink("nowhere.png", photos / "dangling.png")
    (photos / "p02.txt").write_bytes(b"caf\xe9")
    os.mkfifo(photos / "pipe.png")
    out = tmp_path / "out"
    assert pack(photos, out) == 0
    reasons = report(out)
    names = {"empty.jpg", "text.JPG", "cut.jpg", "dangling.png", "p02.png", "pipe.png"}
    assert set(reasons) == names
    assert "empty" in reasons["empty.jpg"]
    assert "truncated" in reasons["cut.jpg"]
    assert "UTF-8" in reasons["p02.png"]
    assert "left out 3 unreadable pictures and" in capsys.readouterr().out


def test_other_files_hidden_ones_and_orphan_captions_are_listed(photos, tmp_path):
    (photos / "notes.md").write_text("x")
    (photos / "drawing.eps").write_text("%!PS")
    (photos / "phone.HEIC").write_text("anything")
    (photos / "orphan.txt").write_text("x")
    (photos / ".hidden.png").write_bytes(b"x")
    save(photos / ".thumbnails/p.png")
    out = tmp_path / "out"
    pack(photos, out)
    assert len(samples(out)) == 12
    assert set(report(out)) == {
        *("notes.md", "drawing.eps", "phone.HEIC", "orphan.txt", ".hidden.png", ".thumbnails")
    }
    assert "not run" in report(out)["drawing.eps"]
    assert "convert it to JPEG" in report(out)["phone.HEIC"]


def test_odd_names(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = [
        "a.jpg",
        "a.png",
        "img.v2.jpg",
        "img.v3.jpg",
        "mit leer zeichen.PNG",
        "日本/é.JPeG",
        "__meta__.png",
        "x.tar.jpg",
    ]
    for n, name in enumerate(names):
        save(photos / name, seed=n)
    (photos / "a.TXT").write_text("both")
    (photos / "img.v2.txt").write_text("two")
    os.makedirs(os.fsencode(photos / "bytes"), exist_ok=True)
    shutil.copy(photos / "a.png", os.path.join(os.fsencode(photos), b"bytes", b"\xff.png"))
    pack(photos, out)
    found = samples(out)
    assert set(found) == {*names, "bytes/\\xff.png"}
    assert all("." not in s.key for s in found.values())
    assert found["a.jpg"].caption == found["a.png"].caption == "both"
    assert found["img.v2.jpg"].caption == "two"
    assert found["img.v3.jpg"].caption is None
    assert found["日本/é.JPeG"].image_ext == "jpg"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_the_report_holds_reasons_that_name_files_whose_names_are_no_text(photos, tmp_path):
    folder = os.fsencode(photos)
    shutil.copy(photos / "p00.png", os.path.join(folder, b"caf\xe9.png"))
    for name in (b"caf\xe9.txt", b"notes.\xe9"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"caf\xe9")
    assert pack(photos, tmp_path / "out") == 0
    reasons = report(tmp_path / "out")
    assert reasons.keys() == {"caf\\xe9.png", "notes.\\xe9"}
    assert "caf\\udce9.txt is not UTF-8" in reasons["caf\\xe9.png"]


def test_ending_follows_the_content(tmp_path):
    save(tmp_path / "photos/really_a_png.jpg", format="PNG")
    pack(tmp_path / "photos", tmp_path / "out")
    assert samples(tmp_path / "out")["really_a_png.jpg"].image_ext == "png"


def test_links_are_followed_but_not_round_in_circles(photos, tmp_path):
    save(tmp_path / "other/far.png")
    os.symlink(tmp_path / "other", photos / "linked")
    os.symlink(photos, photos / "sub/loop")
    os.symlink(photos / "p00.png", photos / "link.png")
    out = tmp_path / "out"
    pack(photos, out)
    assert {"linked/far.png", "link.png"} < set(samples(out))
    assert len(samples(out)) == 14
    assert list(report(out)) == ["sub/loop"]


def test_output_inside_the_source_is_not_packed_itself(photos):
    out = photos / "shards"
    pack(photos, out)
    first = contents(out)
    pack(photos, out)
    assert contents(out) == first
    assert report(out) == {}


def test_rotated_pictures_keep_their_bytes_and_have_upright_facts(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "photos/r.jpg", (40, 30), exif=exif)
    pack(tmp_path / "photos", tmp_path / "out")
    (sample,) = samples(tmp_path / "out").values()
    assert sample.image_bytes == path.read_bytes()
    assert (sample.facts["width_px"], sample.facts["height_px"]) == (30, 40)


def test_reencoding_and_shrinking(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    save(photos / "large.png", (400, 200))
    save(photos / "small.gif", (40, 20))
    save(photos / "narrow.webp", (15, 300))
    pack(photos, out, "--reencode", "jpg", "--max-size", 100)
    found = samples(out)
    assert {s.image_ext for s in found.values()} == {"jpg"}
    assert Image.open(BytesIO(found["large.png"].image_bytes)).size == (100, 50)
    assert found["large.png"].facts["width_px"] == 100
    assert open_image(found["small.gif"].image_bytes).size == (40, 20)
    assert open_image(found["narrow.webp"].image_bytes).size == (5, 100)


def test_shrinking_alone_changes_only_pictures_that_are_too_large(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    small = save(photos / "small.jpg", (40, 20))
    save(photos / "large.jpg", (400, 200))
    save(photos / "large.bmp", (400, 200))
    pack(photos, out, "--max-size", 100)
    found = samples(out)
    assert found["small.jpg"].image_bytes == small.read_bytes()
    assert found["large.jpg"].image_ext == "jpg"
    assert found["large.bmp"].image_ext == "png"


def test_quality_matters(tmp_path):
    save(tmp_path / "photos/a.png", (200, 200))
    for quality in (20, 95):
        pack(tmp_path / "photos", tmp_path / str(quality), "--reencode", "jpg", "--quality", quality)
    low, high = (samples(tmp_path / name)["a.png"].image_bytes for name in ("20", "95"))
    assert len(low) < len(high) / 2


def test_decompression_bomb_is_reported(tmp_path):
    photos = tmp_path / "photos"
    save(photos / "a.png")
    header = b"P6 60000 60000 255\n"
    (photos / "bomb.ppm").write_bytes(header + bytes(100))
    pack(photos, tmp_path / "out")
    assert "pixels" in report(tmp_path / "out")["bomb.ppm"]
