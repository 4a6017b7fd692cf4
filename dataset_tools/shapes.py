"""`python -m dataset_tools shapes OUT`: draw the demo's data, with combinations that training never sees.

With --object NAME: a few pictures of a new object, which captions call by a token of its own, "[NAME]".
"""

import argparse
import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from dataset_tools.shapes_captions import full_caption, varied_caption
from dataset_tools.shapes_world import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    PLACES,
    RADII_PX,
    SIZE_PX,
    Scene,
    all_scenes,
    draw,
)
from dataset_tools.shards import INDEX_NAME, ShardLimits, ShardWriter
from modules.whole_files import write_whole

HELD_OUT_SCENES = 120  # of 960
TRAINING_PICTURES, OBJECT_PICTURES = 8000, 8
SETTINGS_NAME = "shapes.json"
SPLITS = ("train", "held_out")


def split_scenes() -> tuple[list[Scene], list[Scene]]:
    """The scenes for training (840) and those held out (120): the same ones in every data set."""
    scenes = all_scenes()
    order = np.random.default_rng(1234).permutation(len(scenes))
    held_out = set(order[:HELD_OUT_SCENES].tolist())
    training = [scene for index, scene in enumerate(scenes) if index not in held_out]
    return training, [scenes[index] for index in sorted(held_out)]


def split_object(name: str, count: int) -> tuple[list[Scene], list[Scene]]:
    """Scenes of a new object: `count` for training, and all others.

    Those for training show each colour, size, place and background about equally often, and as many pairs of
    them as a few hundred draws can find: what goes together in all pictures cannot be told apart.
    """
    rng = np.random.default_rng(1234)

    def drawn() -> list[Scene]:
        choices = (COLOURS, [name], RADII_PX, PLACES, BACKGROUNDS)
        columns = [rng.permutation(np.resize(list(names), count)).tolist() for names in choices]
        return [Scene(*names) for names in zip(*columns, strict=True)]

    training = max((drawn() for _ in range(500)), key=num_pairs)
    everything = dict.fromkeys(scene._replace(shape=name) for scene in all_scenes())
    return training, [scene for scene in everything if scene not in training]


def num_pairs(scenes: Iterable[Scene]) -> int:
    """How many different pairs of attributes occur together."""
    return len({pair for scene in scenes for pair in itertools.combinations(scene, 2)})


def samples(
    scenes: list[Scene], count: int, seed: int, *, varied: bool
) -> Iterator[tuple[bytes, str, Scene]]:
    """Draw `count` pictures, going through the scenes in shuffled rounds: PNG, caption, scene."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(count):
        order = order or rng.permutation(len(scenes)).tolist()
        scene = scenes[order.pop()]
        png = io.BytesIO()
        Image.fromarray(draw(scene, rng)).save(png, "PNG", compress_level=1)
        yield png.getvalue(), varied_caption(scene, rng) if varied else full_caption(scene), scene


def write_split(folder: Path, scenes: list[Scene], count: int, seed: int, *, varied: bool) -> None:
    """Write one split as shards; the attributes of each picture stand in its json."""
    with ShardWriter(folder, ShardLimits(max_samples=1000)) as writer:
        drawn = samples(scenes, count, seed, varied=varied)
        title = f"Drawing {folder.name}"
        for number, (png, caption, scene) in enumerate(track(drawn, title, total=count)):
            facts = {"width_px": SIZE_PX, "height_px": SIZE_PX, **scene._asdict()}
            writer.write(f"{folder.name}_{number:06d}", png, "png", caption, facts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="folder for the splits train/ and held_out/")
    parser.add_argument("--object", choices=OBJECTS, help="draw this object, which is not part of the world")
    counts = f"(default: {TRAINING_PICTURES}; of an object {OBJECT_PICTURES})"
    parser.add_argument("--train", type=int, help=f"pictures to train on {counts}")
    parser.add_argument(
        "--held-out", type=int, default=240, help="pictures to judge by (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of jitter and wording (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Draw both splits, unless the folder holds them already."""
    if args.train is None:
        args.train = OBJECT_PICTURES if args.object else TRAINING_PICTURES
    for name, least in (("train", 1), ("held_out", 1), ("seed", 0)):
        if (found := getattr(args, name)) < least:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least {least}, found {found}")
    settings = {"train": args.train, "held_out": args.held_out, "seed": args.seed}
    settings |= {"object": args.object} if args.object else {}
    if _is_drawn(args.out, settings):
        print(f"{args.out} holds these pictures already")
        return 0
    _claim(args.out, settings)
    training, held_out = split_object(args.object, args.train) if args.object else split_scenes()
    write_split(args.out / "train", training, args.train, 2 * args.seed, varied=not args.object)
    write_split(args.out / "held_out", held_out, args.held_out, 2 * args.seed + 1, varied=False)
    write_whole(args.out / SETTINGS_NAME, json.dumps(settings) + "\n")
    print(f"{args.train} pictures of {len(training)} scenes in {args.out / 'train'}, ", end="")
    print(f"{args.held_out} of {len(held_out)} others in {args.out / 'held_out'}")
    return 0


def _claim(out: Path, settings: dict[str, int | str]) -> None:
    """Note what is being drawn; ValueError when there are shards, but no such note beside them."""
    foreign = [path for name in SPLITS for path in (out / name).glob("*.tar")]
    if foreign and not (out / SETTINGS_NAME).is_file():
        raise ValueError(f"{foreign[0]} is no shard of `shapes`; name another folder, or remove it")
    write_whole(out / SETTINGS_NAME, json.dumps({"unfinished": settings}) + "\n")


def _is_drawn(out: Path, settings: dict[str, int | str]) -> bool:
    stored = out / SETTINGS_NAME
    indices = all((out / name / INDEX_NAME).is_file() for name in SPLITS)
    try:
        return indices and json.loads(stored.read_text(encoding="utf-8")) == settings
    except (OSError, ValueError):  # none, or a damaged one
        return False
