"""Packing the pictures of a folder into shards, so that only what changed is packed when it is done again.

Each finished shard leaves a note in `<out>/.pack/` of what it was made from. A later run keeps a shard whose
note still holds and makes the others, so a killed run is resumed by running it again, and ends with the same
bytes as one that was not killed.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataset_tools.kinds import Kind
from dataset_tools.locks import alone
from dataset_tools.lookahead import Lookahead
from dataset_tools.packing.prepare import Encoding, Prepared, prepare
from dataset_tools.packing.scan import Entry, LeftOut
from dataset_tools.shards import (
    INDEX_NAME,
    Shard,
    ShardInfo,
    ShardLimits,
    sample_members,
    shard_name,
    write_index,
)
from modules.whole_files import write_whole

REPORT_NAME = "report.csv"
NOTES_NAME = ".pack"
VERSION = 2
"""Of what packing makes from an input; a change of it packs everything anew."""


class Note(NamedTuple):
    """What a finished shard was made from."""

    inputs: str
    """Checksum of everything that its bytes depend on."""
    end: int
    """Position of the first picture of the next shard."""
    info: ShardInfo
    left_out: list[LeftOut]
    """The pictures among its own that could not be read."""


class Summary(NamedTuple):
    """What a run did."""

    samples: int
    shards: int
    kept: int
    """Shards that were there already."""
    removed: int
    """Shards of an earlier run that are no longer needed."""
    left_out: list[LeftOut]
    """Unreadable pictures."""


class Packer:
    """Packs entries into `<out>/000000.tar` and on.

    num_workers: processes that read and check pictures; 0 works in this one. advance: called with the number
    of entries that are done.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        out: Path,
        limits: ShardLimits,
        encoding: Encoding,
        num_workers: int = 0,
        advance: Callable[[int], None] = lambda count: None,
    ):
        self._entries = entries
        self._out = out
        self._limits = limits
        self._encoding = encoding
        self._num_workers = num_workers
        self._advance = advance

    def run(self) -> Summary:
        """Pack all entries.

        Raises ValueError when the folder holds shards that `pack` did not write, or another packs into it.
        """
        self._claim_folder()
        refusal = f"{self._out}: another pack is at work there; wait for its end"
        with alone(self._out / NOTES_NAME / "lock", refusal):  # two would write into one another's files
            return self._pack()

    def _pack(self) -> Summary:
        work = partial(prepare, encoding=self._encoding)
        notes: list[Note] = []
        kept = position = 0
        with Lookahead(work, [entry.path for entry in self._entries], self._num_workers) as pictures:
            while position < len(self._entries):
                note = self._kept(len(notes), position)
                if note:
                    kept += 1
                    self._advance(note.end - position)
                else:
                    note = self._fill(len(notes), position, pictures)
                notes.append(note)
                position = note.end
        used = [note for note in notes if note.info.samples]
        removed = self._remove_from(len(used))
        left_out = [row for note in notes for row in note.left_out]
        samples = sum(note.info.samples for note in used)
        if used:
            write_index(self._out, [note.info for note in used])
        return Summary(samples, len(used), min(kept, len(used)), removed, left_out)

    def _claim_folder(self) -> None:
        notes = self._out / NOTES_NAME
        if not notes.is_dir() and (foreign := sorted(self._out.glob("*.tar"))):
            name = foreign[0].name
            raise ValueError(f"{self._out} holds {name}, which pack did not write; name another folder")
        notes.mkdir(parents=True, exist_ok=True)

    def _kept(self, number: int, first: int) -> Note | None:
        """Return the note of a shard that is as this run would make it; None when it is to be made."""
        note = _read_note(self._note_path(number))
        path = self._out / shard_name(number)
        if note is None or note.inputs != self._inputs(first, note.end, note.info.samples):
            return None
        whole = path.is_file() and path.stat().st_size == note.info.bytes
        return note if whole else None

    def _fill(self, number: int, first: int, pictures: "Lookahead[Path, Prepared]") -> Note:
        """Make one shard from the entries at `first` and on, until one does not fit."""
        (self._out / INDEX_NAME).unlink(missing_ok=True)  # an index is of a complete data set
        self._note_path(number).unlink(missing_ok=True)
        shard = Shard(self._out / shard_name(number), self._limits)
        left_out: list[LeftOut] = []
        end = first
        try:
            while end < len(self._entries):
                entry, picture = self._entries[end], pictures[end]
                if picture.problem:
                    left_out.append(LeftOut(entry.source, picture.problem.kind, str(picture.problem)))
                else:
                    members = _members(entry, picture)
                    if not shard.fits(members):
                        break
                    shard.add(f"{end:09d}", members, picture.size_px)
                self._advance(1)
                end += 1
        except BaseException:
            shard.discard()
            raise
        info = shard.finish()
        note = Note(self._inputs(first, end, info.samples), end, info, left_out)
        write_whole(self._note_path(number), json.dumps(note._asdict() | {"info": info._asdict()}) + "\n")
        return note

    def _inputs(self, first: int, end: int, samples: int) -> str:
        """Return a checksum of what decides the bytes of the shard of the entries first to end - 1.

        The entry behind it is a part: had it been smaller, it might have gone into the shard. Not so when
        the shard is full by number.
        """
        last = end if samples >= self._limits.max_samples else end + 1
        rows = [_fingerprint(entry) for entry in self._entries[first:last]]
        facts = [VERSION, self._limits, self._encoding, first, rows]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _remove_from(self, count: int) -> int:
        """Remove the shards of an earlier run that this one did not need, and half-written files."""
        unfinished = ["[0-9]*.tar.tmp", f"{INDEX_NAME}*.tmp", f"{REPORT_NAME}*.tmp", f"{NOTES_NAME}/*.tmp"]
        for path in [path for pattern in unfinished for path in self._out.glob(pattern)]:
            path.unlink()
        removed = 0
        for path in sorted((self._out / NOTES_NAME).glob("*.json")):
            if path.stem >= shard_name(count).removesuffix(".tar"):
                (self._out / f"{path.stem}.tar").unlink(missing_ok=True)
                path.unlink()
                removed += 1
        return removed

    def _note_path(self, number: int) -> Path:
        return self._out / NOTES_NAME / shard_name(number).replace(".tar", ".json")


def write_report(out: Path, left_out: Sequence[LeftOut]) -> None:
    """Write `report.csv`: each file that was left out, and why."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LeftOut._fields)
    writer.writerows(sorted(left_out))
    # A reason may name a file, and such a name may hold bytes that are no UTF-8.
    write_whole(out / REPORT_NAME, text.getvalue().encode(errors="backslashreplace").decode())


def _members(entry: Entry, picture: Prepared) -> dict[str, bytes]:
    width, height = picture.size_px
    facts = {"width_px": width, "height_px": height, "source": entry.source} | entry.facts
    return sample_members(picture.image, picture.ext, entry.caption, facts)


def _fingerprint(entry: Entry) -> list[Any]:
    """Return all of an entry that a sample depends on; a picture's content by size and time of change."""
    return [entry.source, entry.num_bytes, entry.mtime_ns, entry.caption, entry.facts]


def _read_note(path: Path) -> Note | None:
    """Read a shard's note; None when there is none or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Note(
            values["inputs"],
            values["end"],
            ShardInfo(**values["info"]),
            [LeftOut(file, Kind(kind), reason) for file, kind, reason in values["left_out"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
