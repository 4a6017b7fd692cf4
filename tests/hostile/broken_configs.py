"""Command lines with one mistake each, made at random from sound ones: what is typed, what is to be said."""

import random
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

TEXTS = ("prompt", "negative_prompt")
LETTERS = "abcdefghijklmnopqrstuvwxyz_"
GROUPS = {  # options that are there, by group
    "parallel": ("single", "ddp", "fsdp", "hsdp"),
    "optim": ("adamw", "adamw8bit", "paged_adamw8bit"),
    "run": ("default", "demo", "tiny"),
    "tracker": ("csv", "tensorboard", "wandb"),
    "debug": ("smoke", "overfit", "profile"),
    "data": ("default", "demo", "tiny"),
}
GARBAGE = (  # what is typed, and what has to be in the message
    ("run.num_steps=[1", "run.num_steps"),
    ("run.num_steps={1", "run.num_steps"),
    ("run.num_steps", "run.num_steps"),
    ("run.=3", "run."),
    (".run=3", ".run"),
    ("=3", "=3"),
    ("name='x", "name"),
    ('name="x', "name"),
    ("name=${nothing}", "nothing"),
    ("name=${oc.env:NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
    ("name=${run.seed", "name"),
    ("name=${no_such:1}", "no_such"),
    ("run.dir=${name}${name", "run.dir"),
    ("rün.num_steps=3", "rün"),
    ("运行=3", "运行"),
    ("+run.num_stepz=3", "num_steps"),
    ("++run.num_stepz=3", "num_steps"),
    ("~run.num_stepz", "num_stepz"),
    ("_target_=os.system", "_target_"),
    ("recipe._target_=os.system", "_target_"),
    ("run._target_=os.system", "_target_"),
    ("gdf._target_=os.system", "_target_"),
    ("gdf.schedule._target_=os.system", "_target_"),
    ("optim._target_=os.system", "_target_"),
    ("data.control._target_=os.system", "control"),
    ("data.filters=[{_target_: os.system}]", "_target_"),
    ("hydra.launcher._target_=os.system", "_target_"),
    ("hydra.sweeper._target_=os.system", "_target_"),
    ("hydra.callbacks.x._target_=os.system", "_target_"),
    ("hydra.job_logging.handlers.x.class=os.system", "job_logging"),
    ("hydra/hydra_logging=colorlog", "hydra_logging"),
    ("--experimental-rerun=config.pickle", "--experimental-rerun"),
    ("hydra.run.dirr=x", "dirr"),
    ("hydra/launcher=nothing", "hydra/launcher"),
    ("--no-such-option", "--no-such-option"),
    ("--config-name=nothing", "nothing"),
    ("optim.lr=1e-4,1e-5", "optim.lr"),
    ("run.num_steps=1 run.seed=2", "run.num_steps"),
    ("run.num_steps=' 3'", "run.num_steps"),
    ("run.dir={a: {b: {c: [1, {d: 2}]}}}", "run.dir"),
    ("run=[default,tiny,nothing]", "run"),
    ("tracker=[1]", "tracker/1"),
    ("tracker=true", "tracker/true"),
    ("data.filters=[{field: width_px, op: \"=>\", value: 1}]", "op"),
    ("data.filters=[{feild: width_px}]", "field"),
    ("data.aspect_ratios=[1/0]", "aspect_ratios"),
    ("data.aspect_ratios=[x]", "aspect_ratios"),
    ("data.control={name: cany}", "canny"),
    ("gdf.schedule.name=CosineShedule", "CosineSchedule"),
    ("gdf.schedule=CosineSchedule", "gdf.schedule"),
    ("gdf.target.name=os.system", "gdf.target"),
    ("optim.betas=[0.9]", "optim.betas"),
    ("optim.betas=[0.9,nan]", "optim.betas"),
    ("optim.players={nobody: {lr: 1}}", "nobody"),
)  # fmt: skip
CONTRADICTIONS = (  # settings that are fine one by one
    (("run.save_every=10", "run.keep_every=15"), "run.keep_every"),
    (("optim.schedule=cosine", "optim.warmup_steps=50", "run.num_steps=50"), "optim.warmup_steps"),
    (("optim.name=adamw8bit", "parallel=fsdp"), "optim.name"),
    (("optim.weights=bf16_stochastic", "run.precision=bf16", "parallel=hsdp"), "optim.weights"),
    (("optim.fused_backward=true",), "run.clip_norm"),
    (("model.text_encoder.source=x", "model.text_encoder.config={}"), "text_encoder"),
    (("recipe.name=stage_x",), "recipe.name"),
    (("data.control={name: canny}",), "data.control"),
    (("data.image_size_px=8", "data.multiple_px=32"), "image_size_px"),
    (("data.shards=[]",), "data.shards"),
    (("--multirun", "hydra.launcher._target_=os.system", "run.seed=1,2"), "_target_"),
)


class Broken(NamedTuple):
    """arguments: of the command line, after the experiment. said: what the one line has to name."""

    arguments: tuple[str, ...]
    said: tuple[str, ...]


def broken(seed: int, plain: Mapping[str, Any]) -> Broken:
    """A mistake in settings such as these (of a training, composed, as plain data)."""
    rng = random.Random(seed)
    leaves = [(path, value) for path, value in flat(plain) if not path[-1].startswith("_")]
    kinds = (misspelt_key, misspelt_key, wrong_type, wrong_type, impossible_number, missing)
    kinds += (misspelt_option, garbage, contradiction)
    for _ in range(1000):
        if made := rng.choice(kinds)(rng, leaves):
            return made
    raise AssertionError("no mistake can be made in these settings")


def flat(plain: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in plain.items():
        yield (*above, str(key)), value
        if isinstance(value, Mapping):
            yield from flat(value, (*above, str(key)))


def is_free(path: tuple[str, ...]) -> bool:
    """Whether any key is allowed there: patterns of layers, texts of tokens, players."""
    return bool({"layers", "tokens", "players"} & set(path[:-1])) or not all(
        part.replace("_", "a").isalnum() for part in path
    )


def misspelt_key(rng: random.Random, leaves: list) -> Broken | None:
    path, value = rng.choice(leaves)
    if is_free(path) or len(path[-1]) < 4:
        return None
    wrong = misspelt(rng, path[-1])
    beside = [other[-1] for other, _ in leaves if other[:-1] == path[:-1]]
    if get_close_matches(wrong, sorted(beside), n=1, cutoff=0.5) != [path[-1]] or wrong in beside:
        return None
    shown = "{}" if isinstance(value, Mapping) else "1"
    return Broken((f"{'.'.join((*path[:-1], wrong))}={shown}",), (wrong, path[-1]))


def misspelt(rng: random.Random, word: str) -> str:
    """A word with one letter lost, doubled, exchanged or added."""
    at = rng.randrange(1, len(word))
    return rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at - 1] + word[at:],
            word[:at] + rng.choice(LETTERS) + word[at:],
            word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
        )
    )


def wrong_type(rng: random.Random, leaves: list) -> Broken | None:
    path, value = rng.choice(leaves)
    if is_free(path) or value is None or path[-1] == "name":
        return None
    if isinstance(value, bool):
        found = rng.choice(("3", "maybe", "[true]", "{a: 1}", "1.5", "''"))
    elif isinstance(value, int):
        found = rng.choice(("many", "[1,2,[3]]", "{a: 1}", "1.5", "true", "''", "'3'", "0x"))
    elif isinstance(value, float):
        found = rng.choice(("much", "[[1]]", "{a: 1}", "true", "''", "'0.5'"))
    elif isinstance(value, str):
        found = rng.choice(("{a: 1}", "[[1]]", "{a: {b: [c]}}"))
    elif isinstance(value, list):
        found = rng.choice(("{a: 1}", "[{a: 1}]", "true"))
    else:
        found = rng.choice(("3", "x", "[1]", "true"))
    return Broken((f"{'.'.join(path)}={found}",), (".".join(path[:2]), path[-1]))


def impossible_number(rng: random.Random, leaves: list) -> Broken | None:
    path, value = rng.choice(leaves)
    if is_free(path) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    found = rng.choice(("nan", "inf", "-inf", "1e400", "1" + "0" * 30, "-" + "9" * 30, "-1e39"))
    return Broken((f"{'.'.join(path)}={found}",), (path[-1],))


def missing(rng: random.Random, leaves: list) -> Broken | None:
    found = rng.choice(("data.shards", "run.dir"))
    return rng.choice(
        (
            Broken((f"{found}=???",), (found,)),
            Broken((f"{found}=null",), (found,)),
            Broken((f"{found}=''",), (found,)),
            Broken(("~recipe",), ("recipe", "experiment")[:1]),
            Broken(("~data.shards",), ("data.shards",)),
            Broken(("~run",), ("run",)),
            Broken(("recipe.name=null",), ("recipe.name",)),
            Broken(("recipe.name=''",), ("recipe.name",)),
        )
    )


def misspelt_option(rng: random.Random, leaves: list) -> Broken | None:
    group = rng.choice(sorted(GROUPS))
    option = rng.choice(GROUPS[group])
    wrong = misspelt(rng, option)
    return None if wrong in GROUPS[group] else Broken((f"{group}={wrong}",), (f"{group}/{wrong}", option))


def garbage(rng: random.Random, leaves: list) -> Broken:
    typed, said = rng.choice(GARBAGE)
    return Broken((typed,), (said,))


def contradiction(rng: random.Random, leaves: list) -> Broken | None:
    arguments, said = rng.choice(CONTRADICTIONS)
    known = {".".join(path) for path, _ in leaves}
    keys = {argument.partition("=")[0] for argument in arguments}
    return Broken(arguments, (said,)) if keys <= known | set(GROUPS) else None


REQUESTS = (  # of `python -m inference`: what is typed, and what has to be in the message
    (("task=inpant",), "inpaint"),
    (("stage_c.sampler=ddmp",), "ddpm"),
    (("stage_c.guidance=[1,2,3]",), "stage_c.guidance"),
    (("stage_c.guidance=[1,x]",), "stage_c.guidance"),
    (("stage_c.guidance=nan",), "stage_c.guidance"),
    (("stage_b.guidance=[1,inf]",), "stage_b.guidance"),
    (("stage_c.steps=1000000000",), "stage_c.steps"),
    (("stage_c.steps=0",), "stage_c.steps"),
    (("stage_c.shift=0",), "stage_c.shift"),
    (("stage_c.shift=1e39",), "stage_c.shift"),
    (("stage_c.rescale=1.5",), "stage_c.rescale"),
    (("width_px=0",), "width_px"),
    (("height_px=-64",), "height_px"),
    (("width_px=1000000000",), "width_px"),
    (("width_px=64.5",), "width_px"),
    (("width_px=nan",), "width_px"),
    (("seed=-1",), "seed"),
    (("seed=9223372036854775808",), "seed"),
    (("seed=[1,-1]",), "seed"),
    (("seed=[]",), "seed"),
    (("num_images=0",), "num_images"),
    (("num_images=1000000000000",), "num_images"),
    (("batch_size=0",), "batch_size"),
    (("num_images=3", "seed=[1,2]"), "num_images"),
    (("strength=0",), "strength"),
    (("strength=nan",), "strength"),
    (("edge_px=-1",), "edge_px"),
    (("margins.left_px=-1",), "margins.left_px"),
    (("margins.left_px=100000",), "margins.left_px"),
    (("dtype=fp17",), "dtype"),
    (("prompts_file=nowhere.txt", "prompt=''"), "prompts_file"),
    (("prompts_file=nowhere.txt",), "prompts_file"),
    (("loras=[{weights: x, wieght: 1}]",), "weight"),
    (("loras=[{weights: x, weight: nan}]",), "loras[0].weight"),
    (("loras=x",), "loras"),
    (("controls=[{weights: x, start: 0.5, end: 0.4}]",), "controls[0].end"),
    (("controls=[{weights: x, raw: true}]",), "controls[0].image"),
    (("image_prompt.images=[a.png]",), "image_prompt.weights"),
    (("image=[a,b]", "mask=[a,b,c]"), "mask"),
    (("run=[a]",), "run"),
    (("weights.stage_d=x",), "stage_"),
    (("_target_=os.system",), "_target_"),
    (("stage_c._target_=os.system",), "_target_"),
    (("hydra.callbacks.x._target_=os.system",), "_target_"),
    (("width_px=[1",), "width_px"),
    (("width_px",), "width_px"),
    (("=3",), "=3"),
    (("--nothing",), "--nothing"),
    (("output=${oc.env:NO_SUCH_VARIABLE}",), "NO_SUCH_VARIABLE"),
)  # fmt: skip


def broken_request(seed: int, plain: Mapping[str, Any]) -> Broken:
    """A mistake in the settings of pictures."""
    rng = random.Random(seed)
    leaves = list(flat(plain))
    for _ in range(1000):
        make = rng.choice((misspelt_key, wrong_type, impossible_number, None, None))
        if make is None:
            arguments, said = rng.choice(REQUESTS)
            return Broken(arguments, (said,))
        made = make(rng, [(path, value) for path, value in leaves if path[-1] not in TEXTS])
        if made:
            return made
    raise AssertionError("no mistake can be made in these settings")
