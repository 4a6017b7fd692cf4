"""Measure a cascade: does it draw what it is told, and how much of a picture do its latents keep?

python -m scripts.evaluate --run outputs/demo --data outputs/demo/data/held_out --out outputs/demo/report.json

--data is a folder of shards of held-out pictures. Where their facts name colour, shape, size, place and
background (`python -m dataset_tools shapes` writes such), the judge reads the generated pictures and prompts
are scored.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from dataset_tools.images import open_image
from dataset_tools.records import Broken, Sample, read_samples
from dataset_tools.shapes_captions import full_caption
from dataset_tools.shapes_world import Scene
from inference import Cascade, Picture, Request, StageSettings
from inference.progress import ProgressBar
from inference.sources import fit, source_size
from modules.command_lines import Parser
from modules.pictures import contact_sheet, save_png, to_image
from modules.schema import from_plain, one_line
from modules.whole_files import write_whole
from scripts.scores import clip_score, fid, reconstruct, score_pairs, score_prompts

MAX_SHOWN = 36  # pictures on a contact sheet
MAX_ROWS = 8  # of original, Stage A alone, and the whole chain


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    num_samples: pictures drawn from prompts. num_reconstructions: held-out pictures encoded and decoded.
    stage_c, stage_b: how they are sampled; None as for any picture. fid_weights: file of the Inception
    network. clip_model: folder with a CLIP model. None leaves a score out.
    """

    num_samples: int = 200
    num_reconstructions: int = 100
    batch_size: int = 32
    stage_c: StageSettings = StageSettings()
    stage_b: StageSettings = StageSettings()
    fid_weights: str | None = None
    clip_model: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_reconstructions", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")


def evaluate(cascade: Cascade, data: str | Path, plan: Plan, sheets: str | Path) -> dict[str, Any]:
    """Measure a cascade on a folder of shards; returns the report as plain data.

    sheets: folder into which samples.png and reconstructions.png go. Raises ValueError, FileNotFoundError.
    """
    started = time.monotonic()
    samples = read_folder(Path(data), max(plan.num_samples, plan.num_reconstructions))
    pictures = draw(cascade, samples, plan)
    report: dict[str, Any] = {"data": str(data), "settings": settings_of(cascade, plan)}
    scenes = [scene_of(sample) for sample in take(samples, plan.num_samples)]
    if all(scenes):
        report["prompts"] = score_prompts([scene for scene in scenes if scene], pictures)
    report["reconstruction"] = score_reconstructions(cascade, samples, plan, Path(sheets))
    if plan.fid_weights:
        report["fid"] = fid(
            [p.image for p in pictures], [open_image(s.image_bytes) for s in samples], plan.fid_weights
        )
    if plan.clip_model:
        report["clip_score"] = clip_score(pictures, plan.clip_model)
    shown = pictures[:MAX_SHOWN]
    sheet = contact_sheet([p.image for p in shown], [p.facts["prompt"] for p in shown])
    save_png(sheet, Path(sheets) / "samples.png")
    report["seconds"] = round(time.monotonic() - started, 1)
    return report


def settings_of(cascade: Cascade, plan: Plan) -> dict[str, Any]:
    """The plan as plain data, with the sampling settings that the weights decide."""
    stages = {"stage_c": plan.stage_c, "stage_b": plan.stage_b}
    sampling = {name: asdict(cascade.networks.sampling(name, chosen)) for name, chosen in stages.items()}
    return asdict(plan) | sampling


def read_folder(folder: Path, most: int) -> list[Sample]:
    """The first samples of a folder's shards; broken ones are left out and named on standard error."""
    if not folder.is_dir():
        raise FileNotFoundError(f"data: the folder {folder} does not exist")
    samples: list[Sample] = []
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb") as file:
            samples += islice(read_samples(file, path.name, complain), most - len(samples))
    if not samples:
        raise ValueError(f"data: {folder} holds no shards (*.tar) with pictures in them")
    return samples


def complain(broken: Broken) -> None:
    """Name a sample that was left out."""
    print(f"left out: {broken.shard} {broken.key}: {broken.reason}", file=sys.stderr)


def take(samples: Sequence[Sample], number: int) -> list[Sample]:
    """So many samples, from the start again when there are fewer."""
    return [samples[i % len(samples)] for i in range(number)]


def scene_of(sample: Sample) -> Scene | None:
    """What a demo picture shows; None for other pictures."""
    if not set(Scene._fields) <= set(sample.facts):
        return None
    return Scene(**{name: sample.facts[name] for name in Scene._fields})


def prompt_of(sample: Sample) -> str:
    """The plain caption that names every attribute of a demo picture; other pictures' own caption."""
    scene = scene_of(sample)
    return full_caption(scene) if scene else sample.caption or ""


def draw(cascade: Cascade, samples: Sequence[Sample], plan: Plan) -> list[Picture]:
    """Pictures drawn from the samples' prompts; the seeds count up."""
    with ProgressBar(math.ceil(plan.num_samples / plan.batch_size)) as bar:
        return cascade.generate(
            [prompt_of(sample) for sample in take(samples, plan.num_samples)],
            range(plan.num_samples),
            batch_size=plan.batch_size,
            on_step=bar,
            stage_c=plan.stage_c,
            stage_b=plan.stage_b,
        )


def score_reconstructions(
    cascade: Cascade, samples: Sequence[Sample], plan: Plan, sheets: Path
) -> dict[str, Any]:
    """PSNR and SSIM through Stage A alone and through the whole chain; writes reconstructions.png."""
    originals: list[Tensor] = []
    made: dict[str, list[Tensor]] = {}
    factor = cascade.networks.peek("stage_a").factor
    for group in same_size(samples[: plan.num_reconstructions], factor):
        for start in range(0, len(group), plan.batch_size):
            batch = group[start : start + plan.batch_size]
            images = torch.stack([fit(image, source_size(image)) for _, image in batch])
            height, width = images.shape[2:]
            requests = [
                Request(prompt=prompt_of(s), seed=i, height_px=height, width_px=width, stage_b=plan.stage_b)
                for i, (s, _) in enumerate(batch, start)
            ]
            originals += images
            for name, outcome in reconstruct(cascade, images, requests).items():
                made.setdefault(name, []).extend(outcome)
    shown = list(zip(originals, made["stage_a"], made["cascade"], strict=True))[:MAX_ROWS]
    captions = ["original", "Stage A alone", "compressor, B, A"] * len(shown)
    sheet = contact_sheet([to_image(image) for row in shown for image in row], captions, columns=3)
    save_png(sheet, sheets / "reconstructions.png")
    return {
        "num_pictures": len(originals),
        **{name: score_pairs(images, originals) for name, images in made.items()},
    }


def same_size(samples: Sequence[Sample], factor: int) -> list[list[tuple[Sample, Image.Image]]]:
    """Samples with their pictures, those of one size together; sides are cut to multiples of the factor."""
    groups: dict[tuple[int, int], list[tuple[Sample, Image.Image]]] = {}
    for sample in samples:
        image = open_image(sample.image_bytes)
        image = image.crop((0, 0, image.width // factor * factor, image.height // factor * factor))
        groups.setdefault(image.size, []).append((sample, image))
    return list(groups.values())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m scripts.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of runs with the networks")
    parser.add_argument("--data", required=True, help="folder of shards with held-out pictures")
    parser.add_argument(
        "--out", required=True, type=Path, help="the report (JSON); contact sheets go beside it"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num-samples", type=int, default=Plan.num_samples)
    parser.add_argument("--num-reconstructions", type=int, default=Plan.num_reconstructions)
    parser.add_argument("--batch-size", type=int, default=Plan.batch_size)
    stage_help = "such as steps=30 guidance=2; the rest as the weights say they are best sampled"
    for stage in ("--stage-c", "--stage-b"):
        parser.add_argument(stage, nargs="*", default=[], metavar="KEY=VALUE", help=stage_help)
    parser.add_argument("--fid-weights", help="file of the Inception network; without it no FID is computed")
    parser.add_argument("--clip-model", help="folder with a CLIP model; without it no CLIP score is computed")
    return parser.parse_args(arguments)


def read_setting(option: str, text: str) -> tuple[str, Any]:
    """A key and its value. Raises ValueError, beginning with the option, for what is none."""
    key, sign, value = text.partition("=")
    try:
        if sign:
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass  # it is said below
    raise ValueError(f"{option}: {text}: expected KEY=VALUE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate and write the report; returns the exit status."""
    options = parse(arguments)
    keys = ("num_samples", "num_reconstructions", "batch_size", "fid_weights", "clip_model")
    try:
        if options.out.suffix != ".json":  # what is there is written over
            raise ValueError(f"--out: expected a name that ends in .json, found {options.out}")
        stages = {
            name: dict(read_setting(option, text) for text in texts)
            for name, option, texts in (
                ("stage_c", "--stage-c", options.stage_c),
                ("stage_b", "--stage-b", options.stage_b),
            )
        }
        plan = from_plain(Plan, {**{key: getattr(options, key) for key in keys}, **stages})
        cascade = Cascade.load(options.run, device=options.device)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = evaluate(cascade, options.data, plan, options.out.parent)
        write_whole(options.out, json.dumps({"run": options.run, **report}, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    print(
        json.dumps(
            {key: report[key] for key in ("prompts", "reconstruction", "fid", "clip_score") if key in report},
            indent=2,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
