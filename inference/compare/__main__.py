"""`python -m inference.compare A B prompts=FILE`: make both sides' pictures, then ask people."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from inference.compare.making import make_side
from inference.compare.plan import Plan, choose, make_plan, read_plan, write_plan
from inference.compare.rates import rates
from inference.compare.report import verdict, write_report
from inference.compare.sides import NAMES, Side, read_side
from inference.compare.votes import Ballot, missing_pictures
from inference.naming import naming
from inference.prompt_files import read_prompt_file
from modules.key_values import settings_from
from modules.schema import ConfigError, bounded, one_line

USAGE = """\
python -m inference.compare A B prompts=FILE [KEY=VALUE ...]   # make the pictures, then open the page
python -m inference.compare vote FOLDER                        # open the page again
python -m inference.compare report FOLDER                      # count: report.json, report.svg, report.html

A, B         each a run (or folder of runs), a folder of pictures, a YAML or JSON file of inference settings,
             or such settings themselves: '{run: outputs/demo, stage_c: {steps: 5}}'
prompts      .tsv (PartiPrompts), .csv (a column named prompt), .jsonl, or text with one prompt per line
output       outputs/compare: the folder of the comparison; the same command goes on with it
num          how many of the prompts, drawn evenly from the categories; all if left out
images       1: pictures of each prompt
seed         0: of the first picture of each prompt, of the choice of prompts, and of what is shown where
steps, guidance                  of Stage C, for both sides
width_px, height_px, negative_prompt, batch_size, device, dtype   for both sides
page         true: open the page once the pictures are there
port, host, root_path            7862, 127.0.0.1 (this machine alone), path behind a proxy
open         false; true: open the page in the browser of this machine
"""
SHARED = ("width_px", "height_px", "negative_prompt", "batch_size", "device", "dtype")
MISTAKE, INTERRUPTED = 2, 130  # exit status


@dataclass(frozen=True)
class Serving:
    """How the page is served; USAGE says what each is."""

    folder: str
    port: int = bounded(7862, least=1, most=65535)
    host: str = "127.0.0.1"
    root_path: str = ""
    open: bool = False


@dataclass(frozen=True)
class Settings:
    """USAGE says what each is."""

    a: str
    b: str
    prompts: str
    output: str = "outputs/compare"
    num: int | None = bounded(None, least=1)
    images: int = bounded(1, least=1, most=1000)
    seed: int = bounded(0, least=0)
    steps: int | None = bounded(None, least=1)
    guidance: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    negative_prompt: str | None = None
    batch_size: int | None = bounded(None, least=1, most=4096)
    device: str | None = None
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    page: bool = True
    port: int = bounded(7862, least=1, most=65535)
    host: str = "127.0.0.1"
    root_path: str = ""
    open: bool = False

    def shared(self) -> dict[str, Any]:
        """Inference settings of both sides."""
        given = {name: getattr(self, name) for name in SHARED}
        stage_c = {"steps": self.steps, "guidance": self.guidance}
        own = {name: value for name, value in stage_c.items() if value is not None}
        plain = {name: value for name, value in given.items() if value is not None}
        return plain | ({"stage_c": own} if own else {})


@dataclass(frozen=True)
class Report:
    """`report FOLDER`."""

    folder: str


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; a mistake is one line and status 2."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(USAGE, end="")
        return 0 if arguments else MISTAKE
    try:
        if arguments[0] == "report":
            return tell(Path(settings_from(Report, arguments[1:], ("folder",)).folder))
        if arguments[0] == "vote":
            return vote(settings_from(Serving, arguments[1:], ("folder",)))
        settings = settings_from(Settings, arguments, ("a", "b"))
        make(settings)
        if not settings.page:
            return 0
        names = ("port", "host", "root_path", "open")
        return vote(Serving(settings.output, **{name: getattr(settings, name) for name in names}))
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("error: stopped; the pictures that were finished are kept", file=sys.stderr)
        return INTERRUPTED


def make(settings: Settings) -> Plan:
    """Make what is missing of both sides' pictures."""
    texts = (settings.a, settings.b)
    shared = settings.shared()
    sides: list[Side] = [read_side(name, text, shared) for name, text in zip(NAMES, texts, strict=True)]
    with naming("prompts"):
        lines = choose(read_prompt_file(settings.prompts), settings.num, settings.seed)
    folder = Path(settings.output)
    if folder.is_file():
        raise ConfigError(f"output: expected a folder, found the file {folder}")
    plan = make_plan(texts, lines, settings.images, settings.seed)
    write_plan(folder, plan)
    for side in sides:
        make_side(side, plan, folder)
    print(f"{folder}: {len(plan.questions)} pairs of pictures")
    return plan


def vote(serving: Serving) -> int:
    """Serve the page of votes until it is interrupted."""
    folder = Path(serving.folder)
    plan = read_plan(folder)
    if missing := missing_pictures(plan, folder):
        raise ConfigError(
            f"{folder}: pictures of {len(missing)} pairs are missing; make them: A B prompts=FILE"
        )
    from inference.compare.page import asset, build  # only now: a mistake need not wait for gradio
    from modules.web import serve

    return serve(
        partial(build, folder, plan),
        host=serving.host,
        port=serving.port,
        root_path=serving.root_path,
        css=asset("compare.css") + asset("report.css"),
        open_browser=serving.open,
    )


def tell(folder: Path) -> int:
    """Write the report, and say the most important of it."""
    plan = read_plan(folder)
    votes = Ballot(folder, plan).votes()
    write_report(folder, plan, votes)
    for aspect, found in rates(plan, votes).items():
        print(f"{aspect}: {verdict(found[''])}")
    print(folder / "report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
