"""README.md of a run: its model card, written from its record (Hugging Face's form: YAML, then Markdown).

Nothing that is this machine's alone goes into it: no paths from the root, no host, no user.
"""

from pathlib import Path
from typing import Any

import yaml

from modules.whole_files import write_whole
from train.reports.card_names import called, code, escaped
from train.reports.card_run import Run, sources, table
from train.reports.card_sections import course, data, figures, settings
from train.reports.card_use import (
    RELEASED_LICENCE_LINK,
    RELEASED_NAME,
    WRAPPERS,
    bases,
    commands,
    is_released,
    licence,
)

NAME = "README.md"


def write_card(folder: Path, out: Path | None = None) -> Path:
    """Write the card of the run in `folder`, there or to `out`. Raises ConfigError, OSError."""
    path = out or folder / NAME
    write_whole(path, card(folder))
    return path


def card(folder: Path) -> str:
    """The card's text."""
    run = Run(folder)
    parts = [
        front_matter(run),
        f"# {escaped(run.config['name'])}\n\n{summary(run)}",
        sheet(run),
        "## Data\n\n" + data(run),
        "## Settings\n\n" + table(("setting", "value"), settings(run)) + "\n\nAll of them: `config.yaml`.",
        "## Hardware and time\n\n" + table(("", ""), course(run)),
        "## Figures\n\n" + figures(run),
        "## How to use it\n\n" + use(run),
        "## Licence\n\n" + "\n\n".join(licence(run.model)),
        "## Limits\n\n" + limits(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(run: Run) -> str:
    """What the hub reads."""
    facts: dict[str, Any] = {
        "library_name": "kaskade",
        "tags": ["kaskade", "stable-cascade", *run.about.tags],
    }
    facts["datasets"] = [name for name, _ in sources(run)]
    if any(map(is_released, bases(run.model).values())):
        facts |= {
            "base_model": RELEASED_NAME,
            "license": "other",
            "license_name": "stable-cascade-nc-community",
            "license_link": RELEASED_LICENCE_LINK,
        }
        said = "# license: that of the released weights; theirs stays"
    else:
        facts["license"] = "unknown"
        said = "# license: put in the one that you choose, such as mit or cc-by-4.0"
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}{said}\n---"


def summary(run: Run) -> str:
    wanted, done = run.config["run"]["num_steps"], run.last.get("step")
    state = "" if run.is_complete else f" **It was stopped after step {done} of {wanted}.**"
    if done is None:
        state = " **Its last start has not ended, or not well.**"
    of = ", ".join(code(called(path)) for path in bases(run.model).values())
    origin = f" Weights it began from or was made with: {of}." if of else ""
    about = run.about
    return (
        f"This is {about.title} of the Stable Cascade / Würstchen family: it {about.what}. "
        f"Trained with Kaskade, recipe `{run.recipe}`.{origin}{state}"
    )


def sheet(run: Run) -> str:
    """The newest sample sheet."""
    found = sorted(run.folder.glob("samples/step_*.png"))
    if not found:
        return ""
    step = int(found[-1].stem.removeprefix("step_"))
    return (
        f"![Sample sheet after step {step}](samples/{found[-1].name})\n\n*Sample sheet after step {step}: the"
        " first pictures of the data, what was made of them, and their captions. Not chosen.*"
    )


def use(run: Run) -> str:
    """Commands, from the folder in which the training was started."""
    folder = called(run.config["run"]["dir"])
    around = run.folder.absolute().parent
    is_whole = all(
        list(around.glob(f"*/weights/{name}*.safetensors")) for name in ("stage_a", "stage_b", "stage_c")
    )
    cascade = called(Path(run.config["run"]["dir"]).parent) if is_whole else "CASCADE"
    lines = commands(run.recipe, run.base, folder, cascade)
    if not lines:
        return "`weights/` holds the networks, `*_ema` averaged ones, their settings in the header."
    stands = "" if is_whole else " CASCADE is a folder with the runs of Stage A, B and C that belong to it."
    told = f"In a checkout of Kaskade; `{folder}` is this folder, photo.png any picture.{stands}"
    needs = " It belongs to the base network named above." if run.recipe in WRAPPERS else ""
    return f"{told}{needs}\n\n```\n" + "\n".join(lines) + "\n```"


def limits(run: Run) -> str:
    """What nobody should expect of it."""
    size = run.config["data"].get("image_size_px")
    told = [
        f"It has seen pictures of about {size}² pixels; what it makes of other sizes was not measured.",
        "It knows what its data show, with their gaps and their leanings, and repeats them.",
        "Nothing filters what it is asked for, or what it makes.",
        "The figures above are of this one training; no other was compared with it.",
    ]
    if not run.is_complete:
        told.insert(0, "The training is not complete.")
    return "\n".join(f"- {line}" for line in told)
