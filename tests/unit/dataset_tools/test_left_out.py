"""What is left out is counted once, and never takes more memory than is set aside for it."""

from dataset_tools import left_out
from dataset_tools.kinds import Kind
from dataset_tools.left_out import LeftOut, union
from dataset_tools.sample_refs import Skipped


def test_a_kind_is_counted_up_to_a_number_and_the_others_go_on(monkeypatch, caplog) -> None:
    """All marks are kept in memory and in every checkpoint, and filters may leave out most of a data set."""
    monkeypatch.setattr(left_out, "MAX_COUNTED", 3)
    found = LeftOut()
    for epoch in range(2):
        for number in range(5):
            found.note(Skipped(Kind.FILTERED, f"a.tar:{number}", f"epoch {epoch}"))
    found.note(Skipped(Kind.EMPTY, "a.tar:9", "no bytes"))
    assert found.counts() == {"filtered": 3, "empty": 1} == union([found.marks, found.marks])
    said = [record.getMessage() for record in caplog.records if "too many" in record.getMessage()]
    assert said == ["data: further filtered are not counted, there are too many of them"]


def test_what_another_rank_left_out_is_added_once_and_up_to_the_number(monkeypatch) -> None:
    """As when a run goes on with fewer ranks."""
    monkeypatch.setattr(left_out, "MAX_COUNTED", 3)
    ranks = [LeftOut(), LeftOut()]
    for rank, found in enumerate(ranks):
        for number in (0, rank + 1):
            found.note(Skipped(Kind.EMPTY, f"a.tar:{number}", "no bytes"))
    ranks[0].add(ranks[1].marks)
    assert ranks[0].counts() == {"empty": 3}
    ranks[0].add({"empty": {"another": 1}, "filtered": {"a.tar": 7}})
    ranks[0].note(Skipped(Kind.EMPTY, "a.tar:9", "no bytes"))
    assert ranks[0].counts() == {"empty": 3, "filtered": 7}
