"""Captions from text files and tables."""

import csv
import json

import pytest
from PIL import Image

from dataset_tools.packing.captions import find_tables, read_table
from dataset_tools.packing.scan import scan


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png", "é.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, *rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def entries(photos, captions=None):
    return {entry.source: entry for entry in scan(photos, photos / "out", captions).entries}


@pytest.mark.parametrize("name", ["metadata.jsonl", "captions.jsonl"])
def test_jsonl_table(photos, name):
    rows = [
        {"file_name": "a.png", "text": " A ", "score": 0.5, "tags": ["x"]},
        {"file_name": "sub/c.png", "text": "C"},
    ]
    write_jsonl(photos / name, *rows)
    found = entries(photos)
    assert (found["a.png"].caption, found["a.png"].facts) == ("A", {"score": 0.5, "tags": ["x"]})
    assert found["sub/c.png"].caption == "C"
    assert found["b.png"].caption is None


@pytest.mark.parametrize("name", ["metadata.csv", "captions.CSV"])
def test_csv_table_with_numbers(photos, name):
    header = ("", "file_name", "caption", "width", "score", "code", "empty")  # pandas writes a column ""
    write_csv(photos / name, header, ("0", "a.png", "one, two\nthree", "12", "-0.25", "007", ""))
    entry = entries(photos)["a.png"]
    assert entry.caption == "one, two\nthree"
    assert entry.facts == {"width": 12, "score": -0.25, "code": "007"}


def test_rows_of_commas_and_spaces_behind_commas_are_passed_over(photos):
    text = 'file_name, text\na.png, "one, two"\n,\n\n'
    (photos / "captions.csv").write_text(text, encoding="utf-8")
    assert entries(photos)["a.png"].caption == "one, two"


def test_numbers_as_captions_stay_text(photos):
    write_csv(photos / "captions.csv", ("file_name", "text"), ("a.png", "1984"))
    assert entries(photos)["a.png"].caption == "1984"


def test_metadata_of_subfolders_name_files_from_there(photos):
    write_jsonl(photos / "metadata.jsonl", {"file_name": "a.png", "text": "A"})
    write_csv(photos / "sub/metadata.csv", ("file_name", "text"), ("c.png", "C"))
    found = entries(photos)
    assert (found["a.png"].caption, found["sub/c.png"].caption) == ("A", "C")


def test_text_file_goes_before_the_table_whose_other_columns_stay(photos):
    write_jsonl(photos / "metadata.jsonl", {"file_name": "a.png", "text": "table", "n": 1})
    (photos / "a.TXT").write_text("\ufefffile\n", encoding="utf-8")
    entry = entries(photos)["a.png"]
    assert (entry.caption, entry.facts) == ("file", {"n": 1})


def test_text_file_in_utf_16(photos):
    (photos / "a.txt").write_text("naïve", encoding="utf-16")
    assert entries(photos)["a.png"].caption == "naïve"


def test_accents_match_however_they_are_composed(photos):
    write_jsonl(photos / "metadata.jsonl", {"file_name": "e\u0301.png", "text": "E"})
    assert entries(photos)["é.png"].caption == "E"


def test_tables_of_windows_have_backslashes_and_its_line_ends(photos):
    (photos / "metadata.csv").write_bytes('\ufefffile_name,text\r\nsub\\c.png,"C, ü"\r\n'.encode())
    assert entries(photos)["sub/c.png"].caption == "C, ü"
    assert not scan(photos, photos / "out").left_out


def test_named_table_is_used_instead(photos, tmp_path):
    write_jsonl(photos / "metadata.jsonl", {"file_name": "a.png", "text": "A"})
    other = write_csv(tmp_path / "other.csv", ("image", "prompt"), ("./a.png", "B"))
    assert entries(photos, other)["a.png"].caption == "B"
    inside = other.rename(photos / "sub/other.csv")
    found = scan(photos, photos / "out", inside)
    assert found.entries[0].caption == "B"
    assert [row.file for row in found.left_out] == ["metadata.jsonl"]


def test_rows_without_a_picture_and_repeated_rows_are_reported(photos):
    rows = [{"file_name": name, "text": name} for name in ("a.png", "gone.png", "a.png")]
    write_jsonl(photos / "metadata.jsonl", *rows)
    left_out = {row.file: row.reason for row in scan(photos, photos / "out").left_out}
    assert "line 2" in left_out["gone.png"]
    assert "line 3 repeats metadata.jsonl line 1" in left_out["a.png"]
    assert entries(photos)["a.png"].caption == "a.png"


@pytest.mark.parametrize("name", ["captions.txt", "captions.json"])
def test_a_named_table_of_another_kind_is_refused(photos, tmp_path, name):
    (tmp_path / name).write_text("a.png: A\n")
    with pytest.raises(ValueError, match=r"--captions .*: expected a name ending in \.jsonl or \.csv"):
        entries(photos, tmp_path / name)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ('"score": 1e999', "not_finite"),
        ('"note": "\\ud800"', "encoding"),
        ('"text": "\\ud800"', "encoding"),
        (f'"note": "{"x" * 200_000}"', "huge_json"),
        (f'"text": "{"漢" * 30_000}"', "long_caption"),
    ],
)
def test_a_row_that_training_would_not_read_is_left_out_alone(photos, facts, kind):
    rows = f'{{"file_name": "a.png", {facts}}}\n{{"file_name": "b.png", "text": "B"}}\n'
    (photos / "metadata.jsonl").write_text(rows, encoding="utf-8")
    assert [(row.file, row.kind) for row in scan(photos, photos / "out").left_out] == [("a.png", kind)]
    assert entries(photos)["b.png"].caption == "B"


def test_the_length_of_a_text_file_counts_as_it_is_stored(photos):
    (photos / "a.txt").write_text("漢" * 30_000, encoding="utf-16")  # 60 kB, of UTF-8 90 kB
    (row,) = scan(photos, photos / "out").left_out
    assert (row.file, row.kind) == ("a.png", "long_caption")


def test_columns_that_pack_fills_are_left_out(photos):
    write_jsonl(photos / "metadata.jsonl", {"file_name": "a.png", "width_px": 1, "source": "x", "n": 2})
    assert entries(photos)["a.png"].facts == {"n": 2}


def test_no_number_is_no_value(photos):
    (photos / "metadata.jsonl").write_text('{"file_name": "a.png", "score": NaN}\n')
    assert entries(photos)["a.png"].facts == {"score": None}


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["x.csv"], ["x.csv"]),
        (["metadata.csv", "x.csv"], ["metadata.csv"]),
        (["sub/x.csv"], []),
        (["sub/metadata.jsonl", "x.csv"], ["sub/metadata.jsonl"]),
    ],
)
def test_choice_of_tables(names, chosen):
    assert find_tables([*names, "a.png"]) == chosen


@pytest.mark.parametrize("names", [["x.csv", "y.jsonl"], ["metadata.csv", "metadata.jsonl"]])
def test_unclear_choice_of_tables(names):
    with pytest.raises(ValueError, match="--captions"):
        find_tables(names)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.jsonl", '{"file_name": "a.png"}\n{', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.jsonl", '{"text": "x"}\n', "column file_name"),
        ("t.jsonl", '{"file_name": "a.png", "text": 5}\n', "expected text"),
        ("t.jsonl", "\udcff\n", "line 1: not JSON"),
        ("t.csv", "name,text\na.png,x\n", "column file_name"),
        ("t.csv", "file_name;text\na.png;one, two\n", "line 1: expected columns with commas between, found"),
        ("t.csv", "file_name,text\na.png\n", "line 2: expected 2 fields"),
        ("t.csv", "file_name,text\na.png,x,y\n", "line 2: expected 2 fields"),
        ("t.csv", 'file_name,text\na.png,"x\n', "after line 1: unexpected end"),
        ("t.csv", "file_name,text\na.png,caf\udce9\n", "not UTF-8"),
    ],
)
def test_unusable_table_is_named_with_its_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path, "")
    assert str(path) in str(caught.value)


def test_a_line_without_end_is_not_read_into_memory(photos, monkeypatch):
    monkeypatch.setattr("dataset_tools.packing.captions.MAX_LINE_BYTES", 100)
    table = write_jsonl(photos / "metadata.jsonl", {"file_name": "a.png", "text": "x" * 100})
    with pytest.raises(ValueError, match="line 1: longer than 100 bytes"):
        read_table(table, "")
