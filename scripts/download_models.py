"""Released weights, fetched to where the configs look for them: listed, asked for, resumed, verified.

python -m scripts.download_models --list
python -m scripts.download_models --for inference --small --bf16
python -m scripts.download_models --for finetune/lora_stage_c_1b --accept-licence stable-cascade-nc-community
python -m scripts.download_models stage_a.safetensors canny.safetensors

Run it in the folder that holds configs/ and models/. HF_TOKEN is sent to the hub where it is set, HF_ENDPOINT
names a mirror of it, HF_HOME its cache (for the CLIP encoders); proxies are those of the environment.
Stopped, the same command goes on. Nothing gets its name before its checksum was found right.
"""

import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from modules.command_lines import Parser
from scripts.released.choice import by_name, chosen
from scripts.released.consent import NoConsentError, ask_consent, check_accepted
from scripts.released.fetch import FetchError, fetch, part_of, size_of
from scripts.released.hub import Wanted, into_cache, wanted
from scripts.released.progress import Bar
from scripts.released.table import Released, amount, released

FAILURE, MISTAKE, INTERRUPTED = 1, 2, 130  # exit status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. 1: something could not be had; what came is there."""
    parser = options()
    given = parser.parse_args(arguments)
    try:
        check_accepted(given.accept_licence)
        if given.list:
            return show(list(released().values()))
        entries = chosen(given.purposes, given.small, given.bf16) + [by_name(name) for name in given.files]
        if not entries:
            parser.error("nothing to fetch; name files, or --for; --list shows them")
        if given.dry_run:
            return show(entries)
        return obtain(entries, given.accept_licence, given.revision)
    except (NoConsentError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def options() -> Parser:
    """The command's options."""
    parser = Parser(prog="python -m scripts.download_models", description=__doc__)
    add = parser.add_argument
    add("files", nargs="*", help="names of files in the list")
    what = "what an experiment needs, or a set: inference, controlnets"
    add("--for", dest="purposes", action="append", default=[], metavar="NAME", help=what)
    add("--small", action="store_true", help="of a set: the small Stage B and Stage C")
    add("--bf16", action="store_true", help="of a set: Stage B and Stage C in bf16, half as large")
    add("--list", action="store_true", help="say what there is, and what of it is here; needs no network")
    add("--dry-run", action="store_true", help="say what would be fetched; needs no network")
    consent = "consent to a licence, for scripts"
    add("--accept-licence", action="append", default=[], metavar="NAME", help=consent)
    add("--revision", help="at the hub, in the place of the table's; for files of one repository")
    return parser


def show(entries: Sequence[Released]) -> int:
    """Print the entries and their sizes, without asking any server."""
    width = max(len(entry.place) for entry in entries)
    for entry in entries:
        here = "here" if not entry.is_encoder and Path(entry.place).is_file() else ""
        source = entry.url or f"{entry.repo} @ {entry.revision}"
        size = f"{amount(entry.size):>8} {entry.known:9}"
        print(f"{entry.place:{width}}  {size}  {here:4}  {entry.licence}, {source}".rstrip())
    print(f"{amount(sum(entry.size for entry in entries))} in all")
    return 0


def obtain(entries: Sequence[Released], accepted: Sequence[str], revision: str | None) -> int:
    """Fetch what is missing, check what is there; returns the exit status."""
    ask_consent(entries, accepted)
    items = [item for entry in entries for item in wanted(entry, revision)]
    check_room([item for item in items if not item.target.exists()])
    failures = 0
    for item in items:
        try:
            obtain_one(item)
            if item.in_cache is not None:
                into_cache(item, revision)
        except FetchError as error:
            print(f"error: {error}", file=sys.stderr)
            failures += 1
        except OSError as error:
            print(f"error: {item.target}: {error.strerror or error}", file=sys.stderr)
            failures += 1
    return FAILURE if failures else 0


def obtain_one(item: Wanted) -> None:
    """Fetch one file, or check the one that is there. Raises FetchError."""
    if item.target.exists():
        with Bar(f"checking {item.label}", item.target.stat().st_size) as bar:
            found = item.remote.sum.of(item.target, bar)
        if not item.remote.sum.holds(found):
            raise FetchError(
                f"{item.target}: there already, but its checksum is {found}, not {item.remote.sum.digits}; "
                "move it away and run the command again, or leave it if it is yours"
            )
        print(f"{item.label}: there already, checksum right")
        return
    with Bar(item.label, item.size) as bar:
        fetch(item.remote, item.target, bar)
    print(f"{item.label}: {amount(item.target.stat().st_size)} in {bar.seconds:.0f} s, checksum right")


def check_room(items: Sequence[Wanted]) -> None:
    """Raise FetchError unless each file system has room for what is still to come there."""
    needed: dict[int, int] = defaultdict(int)
    folders = {}
    for item in items:
        folder = next(parent for parent in item.target.absolute().parents if parent.exists())
        device = folder.stat().st_dev
        needed[device] += max(0, item.size - size_of(part_of(item.remote, item.target)))
        folders[device] = folder
    for device, size in needed.items():
        free = shutil.disk_usage(folders[device]).free
        if size > free:
            raise FetchError(
                f"{folders[device]}: {amount(size)} are to be fetched, {amount(free)} are free there"
            )


if __name__ == "__main__":
    sys.exit(main())
