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
