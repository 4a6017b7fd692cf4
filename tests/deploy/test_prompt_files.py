"""Files of prompts as they are found: tables with quotes, byte order marks, lines that are broken."""

from pathlib import Path

import pytest

from inference.prompt_files import PromptLine, read_prompt_file


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_plain_text_has_a_prompt_per_line(tmp_path: Path) -> None:
    path = write(tmp_path, "prompts.txt", '\ufeffa red circle\r\n\r\n# five\r\n  a cup, "hot"\u2028too \n')
    lines = read_prompt_file(path)
    assert lines == [
        PromptLine(1, "a red circle"),
        PromptLine(3, "# five"),
        PromptLine(4, 'a cup, "hot"\u2028too'),
    ]


def test_parti_prompts_keep_their_quotes_and_columns(tmp_path: Path) -> None:
    rows = [
        "Prompt\tCategory\tChallenge\tNote",
        "bond\tAbstract\tBasic\tBiology-inspired concepts",
        'a sign with "Fly" on it\tOutdoor Scenes\tComplex\t',
        '"open\tArts\tBasic\t',
        '"a ""quoted"" cell"\tArts\tBasic\t',
        '"a" or "b"\tArts',
    ]
    lines = read_prompt_file(write(tmp_path, "PartiPrompts.tsv", "\n".join(rows)))
    prompts = ["bond", 'a sign with "Fly" on it', '"open', 'a "quoted" cell', '"a" or "b"']
    assert [each.prompt for each in lines] == prompts
    assert lines[1].fields == {"Category": "Outdoor Scenes", "Challenge": "Complex"}
    assert [each.line for each in lines] == [2, 3, 4, 5, 6]


def test_csv_cells_may_hold_commas_and_line_ends(tmp_path: Path) -> None:
    text = 'seed,prompt\n5,"a red, round\nthing"\n,a\u2028b\n'
    lines = read_prompt_file(write(tmp_path, "p.CSV", text))
    assert lines == [PromptLine(2, "a red, round\nthing", {"seed": "5"}), PromptLine(4, "a\u2028b")]


def test_jsonl_says_more_than_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", '{"prompt": "a", "seed": [1, 2]}\n\n{"task": "reconstruct"}\n')
    assert read_prompt_file(path) == [
        PromptLine(1, "a", {"seed": [1, 2]}),
        PromptLine(3, "", {"task": "reconstruct"}),
    ]


def test_broken_lines_are_told_apart_from_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "p.jsonl", '{"prompt": "a"}\n{"prompt":\n[1]\n{"prompt": 3}\n{"prompt": "b"}\n')
    lines = read_prompt_file(path, strict=False)
    assert [each.problem is None for each in lines] == [True, False, False, False, True]
    assert lines[3].problem == "prompt: expected text, found 3"
    with pytest.raises(ValueError, match=r"p\.jsonl: line 2: no JSON"):
        read_prompt_file(path)
    table = write(tmp_path, "p.tsv", "prompt\tseed\na\t1\t2\nb\t3\n")
    assert [each.problem for each in read_prompt_file(table, strict=False)][
        0
    ] == "3 cells, but 2 columns (prompt, seed)"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"caf\xe9\n", "not UTF-8 text .byte 3"),
        ("p.txt", "\n \n", "holds no prompt"),
        ("p.csv", "text,seed\na,1\n", "no column 'prompt'; found text, seed"),
        ("p.csv", "prompt,seed,seed\na,1,2\n", "the column 'seed' stands there twice"),
        ("p.csv", 'prompt\n"' + 200_000 * "a" + '"\n', "line 2: no CSV"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_one_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        read_prompt_file(write(tmp_path, name, content))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.txt does not exist"):
        read_prompt_file(tmp_path / "none.txt")
