"""Filters on the facts beside a picture."""

import pytest

from dataset_tools.filters import OPS, Filter

FACTS = {"width_px": 640, "score": "5.25", "licence": "cc0", "tags": ["cat", "sofa"], "note": None}


@pytest.mark.parametrize(
    ("field", "op", "value", "accepted"),
    [
        ("width_px", "==", 640, True),
        ("width_px", "==", 641, False),
        ("width_px", "!=", 641, True),
        ("width_px", "<", 640, False),
        ("width_px", "<=", 640, True),
        ("width_px", ">", 639.5, True),
        ("width_px", ">=", 641, False),
        ("licence", "in", ["cc0", "cc-by"], True),
        ("licence", "not_in", ["cc0", "cc-by"], False),
        ("tags", "contains", "cat", True),
        ("tags", "contains", "dog", False),
        ("licence", "contains", "cc", True),
        ("note", "exists", True, True),
        ("absent", "exists", True, False),
        ("absent", "exists", False, True),
    ],
)
def test_every_comparison(field, op, value, accepted):
    condition = Filter(field, op, value)
    condition.check()
    assert condition.accepts(FACTS) is accepted


@pytest.mark.parametrize("op", [op for op in OPS if op != "exists"])
def test_a_missing_field_fails_every_comparison(op):
    assert not Filter("absent", op, [1]).accepts(FACTS)


def test_numbers_written_as_text_compare_as_numbers():
    assert Filter("score", ">=", 5).accepts(FACTS)
    assert not Filter("score", ">", 10).accepts(FACTS)  # as text "5.25" would be larger than "10"
    assert Filter("score", "==", "5.25").accepts(FACTS)


def test_a_fact_of_another_type_is_not_accepted_and_raises_nothing():
    assert not Filter("licence", "<", 3).accepts(FACTS)
    assert not Filter("note", ">=", 3).accepts(FACTS)
    assert not Filter("width_px", "contains", 6).accepts(FACTS)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Filter("a", "=>", 1), r"op: '=>'}: unknown op; did you mean '[<>=]+'\? Known: == != <"),
        (Filter("a", "notin", [1]), "did you mean 'not_in'"),
        (Filter("a", "in", "abc"), "value must be a list, found 'abc'"),
        (Filter("a", ">="), "value must be a number or text, found None"),
        (Filter("a", "<", [1]), "value must be a number or text, found"),
        (Filter("a", ">", True), "value must be a number or text, found True"),
        (Filter("a", "exists"), "value must be true or false, found None"),
    ],
)
def test_a_wrong_filter_is_named_in_one_line(condition, message):
    with pytest.raises(ValueError, match=message) as caught:
        condition.check()
    assert "\n" not in str(caught.value)
