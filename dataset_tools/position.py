"""Whether a stream's position, read from a file, can be one: a checkpoint may come from a stranger.

A position that leads nowhere would be found out by a worker, a reference to another file read it.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from dataset_tools.buckets import Size
from dataset_tools.sample_refs import SampleRef
from modules.schema import kind_of

MOST = 2**62  # of any whole number
MOST_PX = 2**20
MOST_WALKED = 1024  # batches from a snapshot to where reading goes on; they are walked again
TYPES = {"shard": str, "key": str, "caption": str, "source": str}


class Place(NamedTuple):
    """What a position is checked against."""

    num_sources: int
    shards: Container[str]
    buckets: Container[Size]


def check(state: Any) -> None:
    """Raise ValueError, in one line, unless this can be what `Stream.state_dict` has returned."""
    _mapping(state, "the position", ("walk", "lanes", "next_lane", "epoch", "taken", "left_out"))
    _mapping(state["walk"], "walk")
    _number(state["epoch"], "epoch")
    _each(state["taken"], "taken", _number)
    _each(state["left_out"], "left_out", lambda found, where: _each(found, where, _number))


def check_lanes(state: Mapping[str, Any], num_lanes: int, place: Place) -> None:
    """The same of what means nothing in another data set."""
    lanes = _list(state["lanes"], "lanes", num_lanes)
    for i, lane in enumerate(lanes):
        _lane(lane, f"lanes[{i}]", place)
    _number(state["next_lane"], "next_lane")
    if state["next_lane"] >= len(lanes):
        raise ValueError(f"next_lane: expected one of {len(lanes)}, found {state['next_lane']}")


def _lane(lane: Any, where: str, place: Place) -> None:
    _mapping(lane, where, ("snapshot", "done"))
    _number(lane["done"], f"{where}.done")
    before, snapshot = 0, lane["snapshot"]
    if snapshot is not None:
        _snapshot(snapshot, f"{where}.snapshot", place)
        before = snapshot["num_batches"]
    if not 0 <= lane["done"] - before <= MOST_WALKED:
        raise ValueError(f"{where}.done: expected {before} or a little more, found {lane['done']}")


def _snapshot(snapshot: Any, where: str, place: Place) -> None:
    _mapping(snapshot, where, ("courses", "taken", "num_batches", "waiting"))
    courses = _list(snapshot["courses"], f"{where}.courses", place.num_sources)
    taken = _list(snapshot["taken"], f"{where}.taken", place.num_sources)
    for numbers in (taken, *(_list(course, f"{where}.courses", 3) for course in courses)):
        for number in numbers:
            _number(number, where)
    _number(snapshot["num_batches"], f"{where}.num_batches")
    for i, fields in enumerate(_list(snapshot["waiting"], f"{where}.waiting")):
        _reference(fields, f"{where}.waiting[{i}]", place)


def _reference(fields: Any, where: str, place: Place) -> None:
    ref = SampleRef(*_list(fields, where, len(SampleRef._fields)))
    for name, kind in TYPES.items():
        if not isinstance(getattr(ref, name), kind):
            raise ValueError(f"{where}: {name}: expected a {kind.__name__}, found {getattr(ref, name)!r:.80}")
    for number in (ref.offset, ref.num_bytes, ref.epoch):
        _number(number, where)
    for side in (*_list(ref.picture, f"{where}: picture", 2), *_list(ref.bucket, f"{where}: bucket", 2)):
        _number(side, where)
        if not 0 < side <= MOST_PX:
            raise ValueError(f"{where}: expected a side of 1 to {MOST_PX} px, found {side}")
    if ref.shard not in place.shards:
        raise ValueError(f"{where}: the data set has no shard {ref.shard[:200]!r}")
    if tuple(ref.bucket) not in place.buckets:
        raise ValueError(f"{where}: expected the size of a bucket, found {ref.bucket}")


def _mapping(value: Any, where: str, keys: Sequence[str] = ()) -> None:
    if not isinstance(value, Mapping) or (keys and value.keys() != set(keys)):
        found = list(value)[:10] if isinstance(value, Mapping) else kind_of(value)
        raise ValueError(f"{where}: expected {', '.join(keys) or 'a mapping'}, found {found!r:.200}")


def _each(value: Any, where: str, check_item: Callable[[Any, str], None]) -> None:
    _mapping(value, where)
    for key, item in value.items():
        check_item(item, f"{where}.{key:.80}")


def _list(value: Any, where: str, length: int | None = None) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or length not in (None, len(value)):
        found = len(value) if isinstance(value, list | tuple) else kind_of(value)
        raise ValueError(f"{where}: expected a list of {'' if length is None else length}, found {found}")
    return value


def _number(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{where}: expected a whole number, found {value!r:.80}")
