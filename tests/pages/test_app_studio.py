"""The engine of the page without the page: wishes in a line, previews, ends at any step."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from inference import Cascade, Request, StageSettings, open_picture
from inference.app import jobs
from inference.app.events import Done, Drawing, Waiting
from inference.app.shelf import Shelf
from inference.app.studio import Studio
from inference.app.words import Refused, Stopped

LONG = 1000  # steps: more than any test waits for


@pytest.fixture
def studio(tiny_runs: Path, tmp_path: Path) -> Iterator[Studio]:
    studio = make(tiny_runs, tmp_path)
    studio.start()
    yield studio
    studio.close()


def make(runs: Path, folder: Path) -> Studio:
    shelf = Shelf(folder / "pictures", folder / "kept")
    return Studio(Cascade.load(str(runs), device="cpu"), shelf, queue_length=2)


def wish(steps: int = 3, seed: int = 0, **settings: object) -> Request:
    return Request(prompt="a red circle", seed=seed, stage_c=StageSettings(steps), **settings)  # type: ignore


def until_drawing(events: Iterator) -> None:
    """Wait until sampling is under way."""
    next(event for event in events if isinstance(event, Drawing) and event.step > 0)


def test_a_wish_is_drawn_as_without_the_page(studio: Studio, tiny_runs: Path) -> None:
    events = list(studio.draw([wish(seed=3), wish(seed=4)], "me"))
    assert isinstance(events[-1], Done)
    drawn = [open_picture(path) for path in events[-1].paths]
    expected = Cascade.load(str(tiny_runs), device="cpu").generate(
        "a red circle", [3, 4], stage_c=StageSettings(3)
    )
    for ours, theirs in zip(drawn, expected, strict=True):
        assert ours.image.tobytes() == theirs.image.tobytes()
        assert ours.facts == json.loads(json.dumps(theirs.facts))


def test_the_networks_are_read_before_anybody_asks(studio: Studio) -> None:
    studio.ask(lambda: None, "me")  # whose turn comes after that
    assert {name for name, _ in studio.cascade.networks._loaded} >= {
        "stage_a",
        "stage_b",
        "stage_c",
        "previewer",
        "text_encoder",
    }


def test_the_first_step_and_the_last_have_a_preview(studio: Studio) -> None:
    seen = {}
    for event in studio.draw([wish(seed=i) for i in (1, 2)], "me"):
        if isinstance(event, Drawing) and event.preview:
            seen[event.step] = Image.open(io.BytesIO(event.preview))
    assert seen, "events may be skipped by a slow follower, but not all previews"
    assert all(image.format == "JPEG" and image.width == 2 * image.height for image in seen.values())


def test_previews_take_little_of_the_time(tiny_runs: Path, tmp_path: Path) -> None:
    from inference.app.previews import Previews
    from inference.progress import Step

    cascade = Cascade.load(str(tiny_runs), device="cpu")
    import torch

    latents = torch.zeros(1, 16, 3, 3)
    previews = Previews(cascade.stages)
    assert previews.of(Step("stage_c", 1, 100, latents))
    assert previews.of(Step("stage_c", 2, 100, latents)) is None  # at once after the first
    assert previews.of(Step("stage_c", 100, 100, latents))  # the last in any case


def test_without_a_previewer_it_draws_all_the_same(tiny_runs: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("stage_a", "stage_b", "stage_c"):
        (runs / name).symlink_to(tiny_runs / name)
    studio = make(runs, tmp_path)
    studio.start()
    try:
        events = list(studio.draw([wish()], "me"))
        assert not studio.has_previewer
        assert not any(isinstance(event, Drawing) and event.preview for event in events)
        assert len(events[-1].paths) == 1  # type: ignore[union-attr]
    finally:
        studio.close()


def test_cancel_stops_within_a_step_and_frees_the_line(studio: Studio) -> None:
    events = studio.draw([wish(LONG)], "me")
    until_drawing(events)
    studio.cancel("someone else")
    assert isinstance(next(events), Drawing)
    studio.cancel("me")
    with pytest.raises(Stopped):
        list(events)
    assert isinstance(list(studio.draw([wish()], "you"))[-1], Done)


def test_who_leaves_stops_it(studio: Studio) -> None:
    events = studio.draw([wish(LONG)], "me")
    until_drawing(events)
    events.close()  # type: ignore[attr-defined]
    assert isinstance(list(studio.draw([wish()], "you"))[-1], Done)


def test_who_leaves_the_line_makes_room(studio: Studio) -> None:
    first = studio.draw([wish(LONG)], "first")
    until_drawing(first)
    second, third = studio.draw([wish()], "second"), studio.draw([wish()], "third")
    next(second)
    next(third)
    second.close()  # type: ignore[attr-defined]
    assert next(third) == Waiting(1)
    assert next(studio.draw([wish()], "fourth")) == Waiting(2)  # the line holds two
    first.close()  # type: ignore[attr-defined]
    assert isinstance(list(third)[-1], Done)


def test_others_wait_their_turn_and_hear_their_place(studio: Studio) -> None:
    first = studio.draw([wish(LONG)], "first")
    until_drawing(first)
    second, third = studio.draw([wish()], "second"), studio.draw([wish()], "third")
    assert next(second) == Waiting(1)
    assert next(third) == Waiting(2)
    with pytest.raises(Refused, match="2 others are waiting already"):
        next(studio.draw([wish()], "fourth"))
    studio.cancel("second")
    with pytest.raises(Stopped):
        list(second)
    assert next(third) == Waiting(1)
    studio.cancel("first")
    assert isinstance(list(third)[-1], Done)


def test_who_waits_hears_from_time_to_time_that_it_still_does(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PULSE_S", 0.01)  # sooner than the first has drawn
    first = studio.draw([wish(LONG)], "first")
    until_drawing(first)
    second = studio.draw([wish()], "second")
    assert [next(second) for _ in range(3)] == [Waiting(1)] * 3
    first.close()  # type: ignore[attr-defined]
    assert isinstance(list(second)[-1], Done)


def test_two_at_once_are_drawn_one_after_the_other(studio: Studio) -> None:
    ended: dict[str, object] = {}

    def draw(name: str) -> None:
        ended[name] = list(studio.draw([wish(seed=len(name))], name))[-1]

    threads = [threading.Thread(target=draw, args=(name,)) for name in ("a", "bb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert all(isinstance(each, Done) for each in ended.values()) and len(ended) == 2


def test_a_question_waits_its_turn_too(studio: Studio) -> None:
    assert studio.ask(lambda: threading.current_thread().name, "me") == "studio"


def test_failures_are_told_in_words(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: Exception) -> None:
        raise error

    for error, words in (
        (ValueError("mask: /tmp/secret/abc.png is black"), "mask: “abc.png” is black"),
        (FileNotFoundError("C:\\secret\\a.png: no weights"), "“a.png”: no weights"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (KeyError("unforeseen"), "the terminal"),
    ):
        with pytest.raises(Refused, match=words) as caught:
            studio.ask(lambda error=error: fail(error), "me")  # type: ignore[misc]
        assert "secret" not in str(caught.value)
    assert "unforeseen" in capsys.readouterr().err


def test_closing_stops_what_is_drawn_and_what_waits(tiny_runs: Path, tmp_path: Path) -> None:
    studio = make(tiny_runs, tmp_path)
    studio.start()
    first, second = studio.draw([wish(LONG)], "first"), studio.draw([wish()], "second")
    until_drawing(first)
    next(second)
    studio.close()
    for events in (first, second):
        with pytest.raises(Stopped):
            list(events)
    assert not studio._worker.is_alive()
    with pytest.raises(Stopped):  # and who comes later does not wait for ever
        next(studio.draw([wish()], "third"))


def test_seconds_left_are_known_once_both_stages_were_timed(studio: Studio) -> None:
    list(studio.draw([wish()], "me"))
    left, shares = [], []
    for event in studio.draw([wish(40)], "me"):
        if isinstance(event, Drawing) and event.step:
            left.append(event.seconds_left)
            shares.append(event.share)
    assert None not in left and all(seconds >= 0 for seconds in left)  # type: ignore[operator]
    assert min(shares) >= 0 and max(shares) <= 1


def test_pictures_lie_where_nobody_can_guess_and_are_kept(studio: Studio, tmp_path: Path) -> None:
    paths = [list(studio.draw([wish(seed=7)], "me"))[-1].paths[0] for _ in range(2)]  # type: ignore
    assert all(len(path.parent.name) >= 20 for path in paths) and paths[0].parent != paths[1].parent
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept == ["a-red-circle_7.png", "a-red-circle_7_2.png"]


def test_the_shelf_forgets_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.app import shelf

    monkeypatch.setattr(shelf, "MOST_PICTURES", 2)
    facts = {"prompt": "", "negative_prompt": "", "seed": 0, "width_px": 8, "height_px": 8, "task": "t"}
    facts |= {"run": "r", "versions": {"kaskade": "1"}}
    for name in ("stage_c", "stage_b"):
        facts[name] = dict.fromkeys(("steps", "sampler", "guidance"))
    from inference import Picture

    place = Shelf(tmp_path / "own", None)
    paths = [place.put(Picture(Image.new("RGB", (8, 8)), facts)) for _ in range(3)]
    assert [path.exists() for path in paths] == [False, True, True]
    assert sum(1 for _ in (tmp_path / "own").iterdir()) == 2
