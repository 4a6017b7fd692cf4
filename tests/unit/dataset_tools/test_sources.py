"""What a config may name as shards."""

import json

import pytest

from dataset_tools import sources
from dataset_tools.sources import expand, expand_braces


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("{008..011}.tar", ["008.tar", "009.tar", "010.tar", "011.tar"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("x{a,{1..2}}", ["xa", "x1", "x2"]),
        ("odd{name}.tar", ["odd{name}.tar"]),
        ("odd{a..c}.tar", ["odd{a..c}.tar"]),
    ],
)
def test_braces(text, expanded):
    assert expand_braces(text) == expanded


def test_local_files_folders_globs_braces_and_lists(make_shards, monkeypatch):
    folder = make_shards([1, 1, 1])
    names = [str(folder / f"{n:06}.tar") for n in range(3)]
    (folder / "index.json").write_text("{}")
    assert expand(str(folder)) == names
    assert expand(names[1]) == names[1:2]
    assert expand(f"file://{names[1]}") == names[1:2]
    assert expand(f"{folder}/*.tar") == names
    assert expand(f"{folder}/0*[12].tar") == names[1:]
    assert expand(f"{folder}/{{000000..000001}}.tar") == names[:2]
    assert expand([names[2], str(folder)]) == [names[2], *names[:2]]  # in this order, none twice
    monkeypatch.chdir(folder.parent)
    assert expand("shards/*.tar") == [f"shards/{n:06}.tar" for n in range(3)]


def test_one_file_that_is_there_is_enough_to_begin(make_shards):
    folder = make_shards([1])
    assert len(expand(f"{folder}/{{000000..000003}}.tar")) == 4


@pytest.mark.parametrize("entry", ["nowhere", "nowhere/*.tar", "nowhere.tar", "n{0..3}.tar", "empty"])
def test_what_matches_nothing_is_named(tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        expand([entry])
    assert str(caught.value).startswith(f"data.shards: no .tar at {entry}; make some with: python -m")


def test_a_folder_of_folders_of_shards_names_these(make_shards, tmp_path):
    folder = make_shards([1, 1])
    with pytest.raises(FileNotFoundError) as caught:
        expand(str(tmp_path))
    assert str(caught.value) == f"data.shards: no .tar at {tmp_path}; did you mean {folder}?"


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="empty"):
        expand([])
    with pytest.raises(ValueError, match=r"data\.shards: pipe:cat a\.tar: .* data\.allow_commands=true only"):
        expand("pipe:cat a.tar")
    with pytest.raises(ValueError, match="data.shards: nope://a.tar: Protocol not known"):
        expand("nope://a.tar")


def test_braces_that_stand_for_more_names_than_memory_holds_are_refused():
    with pytest.raises(ValueError, match=r"data\.shards: \{0\.\.99999999999\}: .* more than 1000000 names"):
        expand("a/{0..99999999999}.tar")


@pytest.mark.parametrize(
    "name", ["../a.tar", "/etc/a.tar", "pipe:ls; a.tar", "b/a.tar", "x::file:y.tar", "a.txt", 3]
)
def test_an_index_names_only_shards_beside_it(memory, name):
    memory.pipe_file("/web/index.json", json.dumps({"shards": [{"name": "0.tar"}, {"name": name}]}).encode())
    with pytest.raises(FileNotFoundError, match="expected names of shards beside it, found"):
        expand("memory://web")


def test_an_index_too_long_to_be_read_is_passed_over(memory, monkeypatch):
    memory.pipe_file("/web/0.tar", b"x")
    memory.pipe_file("/web/index.json", json.dumps({"shards": [{"name": "no.tar"}]}).encode() + b" " * 1000)
    monkeypatch.setattr(sources, "MAX_BESIDE_BYTES", 1000)
    assert expand("memory://web") == ["memory:///web/0.tar"]


def test_a_protocol_without_its_package_says_what_to_install(monkeypatch):
    def without_package(url, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(sources.fsspec.core, "url_to_fs", without_package)
    with pytest.raises(ValueError, match=r"s3://bucket/a.tar: .* pip install s3fs$"):
        expand("s3://bucket/a.tar")
