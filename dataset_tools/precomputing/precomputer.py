"""Making shards of latents from shards of pictures, one after the other, each under the name of its source.

A finished shard leaves a note in `<out>/.precompute/`. A later run keeps a shard whose note still holds and
makes the others, so a run that was killed goes on when it is started again. What a shard holds depends on its
source and the facts alone, not on who makes it.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dataset_tools.fetch import ShardReader
from dataset_tools.kinds import Kind
from dataset_tools.latent_facts import Facts
from dataset_tools.latents import find
from dataset_tools.locks import alone
from dataset_tools.precomputing.networks import Networks
from dataset_tools.precomputing.samples import SampleMaker
from dataset_tools.precomputing.settings import Settings
from dataset_tools.sample_refs import Skipped
from dataset_tools.shards import Shard, ShardInfo, ShardLimits, write_index
from dataset_tools.sources import is_remote, one_line
from modules.whole_files import write_whole

NOTES_NAME = ".precompute"
KINDS = {kind.value: kind for kind in Kind}
KEPT_BY = ("filters", "caption", "alternative_caption", "missing_caption", "max_megapixels")
"""The settings of `data` that decide which samples are left out."""
NO_LIMITS = ShardLimits(1 << 62, 1 << 62)  # a shard holds what its source holds


class Note(NamedTuple):
    """What a finished shard was made from, and what it holds."""

    source: list[Any]
    """Size and time of change of a local source, and the settings that leave samples out."""
    info: ShardInfo
    skipped: list[Skipped]


class Precomputer:
    """Makes latents of shards into the folder `out`, which `claim` has prepared. batch_size: of pictures."""

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        facts: Facts,
        out: Path,
        reader: ShardReader,
        batch_size: int,
        num_threads: int,
    ) -> None:
        self.out, self.reader = out, reader
        self.kept = [str(getattr(settings.data, key)) for key in KEPT_BY]
        self.samples = SampleMaker(settings, networks, facts, reader, batch_size, num_threads)

    def run(self, shards: Sequence[str], rank: int = 0, size: int = 1) -> int:
        """Make every size-th shard, beginning with the rank-th; whoever finds all done writes the index.

        shards: such as `check_places` has found fit. Returns the exit status: 1 when some could not be read.
        Raises ValueError when another precompute is at work on one of them.
        """
        own = shards[rank::size]
        (self.out / NOTES_NAME).mkdir(parents=True, exist_ok=True)
        unreachable = 0
        for number, shard in enumerate(own, 1):
            if self._note(shard) is None and not self._renew(shard, f"{number} of {len(own)}"):
                unreachable += 1
        notes = [self._note(shard) for shard in shards]
        done = [note for note in notes if note is not None]
        if len(done) == len(notes):
            self._finish(done)
        return 1 if unreachable else 0

    def close(self) -> None:
        """Let go of files and threads."""
        self.samples.close()
        self.reader.close()

    def _renew(self, shard: str, place: str) -> bool:
        """Make a shard, unless another has done so meanwhile; False where its source could not be read."""
        refusal = f"{self.out}: another precompute makes {_name(shard)} there; wait for its end"
        with alone(self._of_shard(shard, "lock"), refusal):  # else both would write into one unfinished file
            if self._note(shard) is not None:
                return True
            try:
                self.reader.file(shard)
            except OSError as error:
                _say(f"{shard}: skipped, run again to try it again: {one_line(error)}")
                return False
            _say(f"{self._make(shard)}, {place}")
            return True

    def _make(self, shard: str) -> str:
        """Make one shard, and say how it went."""
        began = time.monotonic()
        path = self.out / _name(shard)
        source = self._source(shard)
        writer, skipped = Shard(path, NO_LIMITS), dict[Skipped, None]()
        count = 0
        try:
            for key, members, size_px in self.samples.of(shard, skipped.setdefault):
                try:
                    writer.add(key, members, size_px)
                    count += 1
                except ValueError as error:  # a name that tar cannot write
                    skipped[Skipped(Kind.UNSAFE_NAME, f"{shard}:{key}", one_line(error))] = None
        except BaseException:
            writer.discard()
            raise
        info = writer.finish()
        if not info.samples:
            path.unlink()
        note = Note(source, info, list(skipped))
        values = note._asdict() | {"info": info._asdict()}
        write_whole(self._of_shard(shard, "json"), json.dumps(values) + "\n")
        speed = count / max(time.monotonic() - began, 1e-9)
        return f"{_name(shard)}: {count} samples{_told(note.skipped)}, {speed:.1f} samples/s"

    def _note(self, shard: str) -> Note | None:
        """The note of a shard that is as this run would make it; None when it is to be made."""
        try:
            values = json.loads(self._of_shard(shard, "json").read_text(encoding="utf-8"))
            info = ShardInfo(**values["info"])
            skipped = [Skipped(KINDS[kind], *rest) for kind, *rest in values["skipped"]]
            note = Note(values["source"], info, skipped)
            is_of_source = note.source == self._source(shard)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        path = self.out / _name(shard)
        whole = not info.samples or (path.is_file() and path.stat().st_size == info.bytes)
        return note if whole and is_of_source else None

    def _source(self, shard: str) -> list[Any]:
        if is_remote(shard):
            return self.kept
        status = Path(shard).stat()
        return [status.st_size, status.st_mtime_ns, *self.kept]

    def _of_shard(self, shard: str, ending: str) -> Path:
        """Its note, or the lock of who makes it."""
        return self.out / NOTES_NAME / f"{_name(shard)}.{ending}"

    def _finish(self, notes: Sequence[Note]) -> None:
        infos = [note.info for note in notes if note.info.samples]
        write_index(self.out, infos)
        samples, num_bytes = sum(info.samples for info in infos), sum(info.bytes for info in infos)
        skipped = _told([each for note in notes for each in note.skipped])
        each = f", {num_bytes / samples / 1000:.1f} kB each" if samples else ""
        _say(f"{samples} samples in {len(infos)} shards{each}{skipped}: {self.out}")
        foreign = {path.name for path in self.out.glob("*.tar")} - {info.name for info in infos}
        if foreign:
            _say(
                f"{self.out}: also holds {min(foreign)} ({len(foreign)} in all), which SRC has not;"
                " training would read it: delete it, or name all sources together"
            )


def check_places(shards: Sequence[str], out: Path) -> None:
    """Raise ValueError for shards that cannot be precomputed side by side into `out`, or at all."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: expected a folder for the shards, found a file")
    if find(shards) is not None:
        raise ValueError(f"{shards[0]}: holds precomputed latents; name shards of pictures")
    for name, count in Counter(map(_name, shards)).items():
        if not name.endswith(".tar"):
            raise ValueError(f"SRC: {name}: latents are stored under their shard's name, NAME.tar")
        if count > 1:
            raise ValueError(f"SRC: {count} shards are called {name}; give each folder an OUT of its own")
    for shard in shards:
        if not is_remote(shard) and Path(shard).resolve().parent == out.resolve():
            raise ValueError(f"{out}: SRC and OUT are the same folder; latents need one of their own")


def _say(text: str) -> None:
    print(text, flush=True)


def _told(skipped: Sequence[Skipped]) -> str:
    """How many samples were left out, by kind."""
    counts: Counter[str] = Counter()
    for each in skipped:
        counts[each.kind] += each.num_samples
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
    return f", skipped {kinds}" if kinds else ""


def _name(shard: str) -> str:
    return (urlsplit(shard).path if is_remote(shard) else shard).rpartition("/")[2]
