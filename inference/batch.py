"""Pictures of a whole file of prompts: shared out over processes, and gone on with after a stop."""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from inference.command import write_sheet
from inference.config import Config
from inference.lines import Planned, Problem, plan_lines
from inference.manifest import check_manifest, write_manifest
from inference.naming import naming
from inference.pictures import open_picture, write_picture_as
from inference.pipeline import Cascade
from inference.progress import ProgressBar
from inference.prompt_files import read_prompt_file
from inference.settings import Request
from inference.shares import own_device, wait_for_others
from inference.tasks import task_of
from modules.processes import Place, place
from modules.schema import one_line

Made = tuple[Planned, Request]  # with what the line left open filled in
SHOWN_LINES = 5  # of those with one and the same problem


def draw_lines(config: Config) -> int:
    """Make the pictures of config.prompts_file that are not there yet; returns how many lines failed here.

    Every process does so for its share of the batches, which do not depend on the number of processes; so
    neither do the pictures. Raises ValueError or FileNotFoundError, before anything is built, for what
    concerns all lines.
    """
    own = place()
    if config.sheet and own.size > 1:
        raise ValueError("sheet: cannot be had with several processes; leave it out")
    config = replace(config, device=own_device(config.device, own))
    if config.prompt:
        raise ValueError("prompts_file: give either prompt or prompts_file, not both")
    with naming("prompts_file"):
        lines = read_prompt_file(config.prompts_file or "", strict=False)
    planned, problems = plan_lines(config, lines)
    if not planned:
        raise ValueError(
            f"prompts_file: {config.prompts_file}: line {problems[0].line}: {problems[0].message}"
        )
    for task in {each.request.task: each.request for each in planned}.values():
        task_of(task)
    cascade, folder = config.cascade(), Path(config.output)
    check_manifest(folder, planned, config)
    write_manifest(folder, planned, problems, config)
    problems = [each for each in problems if own.rank == 0]  # all processes have found these
    problems += draw_share(cascade, planned, config, own)
    report(problems, config.prompts_file or "")
    if config.sheet:
        made = [folder / each.file for each in planned if (folder / each.file).is_file()]
        pictures = [open_picture(path) for path in made]
        print(write_sheet(pictures, folder))
    wait_for_others(own)
    return len({each.line for each in problems})


def draw_share(cascade: Cascade, planned: Sequence[Planned], config: Config, own: Place) -> list[Problem]:
    """Make what is missing of a process's batches; returns what could not be made."""
    folder, share = Path(config.output), batches(planned, config.batch_size)[own.rank :: own.size]
    missing = [batch for batch in share if not all((folder / each.file).is_file() for each in batch)]
    count = sum(map(len, share))
    here = sum((folder / each.file).is_file() for batch in share for each in batch)
    who = f"process {own.rank + 1} of {own.size}: " if own.size > 1 else ""
    print(f"{who}{cascade.described()}; {count} pictures, {here} of them there already", file=sys.stderr)
    prepared, problems = prepare_all(cascade, missing)
    with ProgressBar(len(prepared), hidden=own.rank > 0) as bar:
        for batch in prepared:
            try:
                pictures = list(cascade.run([[request for _, request in batch]], bar))
            except (ValueError, OSError, torch.OutOfMemoryError) as error:
                problems += [Problem(each.line, message_of(error)) for each, _ in batch]
                continue
            for (each, _), picture in zip(batch, pictures, strict=True):
                # The rest of a batch that was stopped half written is drawn again: the others depend on it.
                if not (folder / each.file).is_file():
                    bar.print(str(write_picture_as(picture, folder / each.file)))
    return problems


def batches(planned: Sequence[Planned], batch_size: int) -> list[list[Planned]]:
    """Pictures that can be computed together, in the order in which their first is asked for."""
    alike: dict[str, list[Planned]] = defaultdict(list)
    for each in planned:
        alike[repr(each.request.shared)].append(each)
    return [group[i : i + batch_size] for group in alike.values() for i in range(0, len(group), batch_size)]


def prepare_all(
    cascade: Cascade, missing: Sequence[Sequence[Planned]]
) -> tuple[list[list[Made]], list[Problem]]:
    """Batches with what was left open filled in, cut where sizes differ; and what cannot be made."""
    prepared: list[list[Made]] = []
    problems = []
    for batch in missing:
        sound = []
        for each in batch:
            try:
                [[_]] = cascade.batches([each.request], 1)
                sound.append(each)
            except (ValueError, OSError) as error:
                problems.append(Problem(each.line, one_line(error)))
        left = iter(sound)
        for requests in cascade.batches([each.request for each in sound], len(batch)):
            prepared.append([(next(left), request) for request in requests])
    return prepared, problems


def message_of(error: Exception) -> str:
    """An error while drawing, in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory; try a smaller batch_size or picture, or offload=stage"
    return one_line(error)


def report(problems: Sequence[Problem], file: str) -> None:
    """Say each problem once, with the lines that have it."""
    alike: dict[str, dict[int, None]] = defaultdict(dict)
    for each in problems:
        alike[each.message][each.line] = None
    for message, having in alike.items():
        print(f"error: {file}: {named(list(having))}: {message}", file=sys.stderr)


def named(lines: Sequence[int]) -> str:
    """Lines as people write them: line 3; lines 3, 5; lines 1, 2, 3, 4, 5 and 20 more."""
    first = ", ".join(map(str, lines[:SHOWN_LINES]))
    more = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {first}{more}"
