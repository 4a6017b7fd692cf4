"""How long a run takes, what it costs, what it sends and stores, from what was counted and assumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from train.budget.gpus import PRICED, Gpu
from train.budget.memory import GB

TB = 1e12
TEXT_STATES = 77 * 1280 + 1280  # numbers per caption, of which precomputed shards hold one set
PIXELS_PER_LATENT, LATENT_CHANNELS = 32, 16  # of the released compressor
IMAGE_STATES = 768  # numbers per picture of CLIP ViT-L/14


@dataclass(frozen=True)
class Assumed:
    """What nothing here can count: machines, prices, data."""

    gpu: Gpu
    gpus: int
    gpus_per_node: int
    mfu: float  # share of the GPU's peak that becomes useful work
    price: float | None  # per GPU and hour; None: as of the GPU
    pictures: float  # of the data set
    picture_kb: float
    core_pictures: float  # that a core reads, decodes and resizes per second
    disk_gb_s: float
    latents: bool = False  # in the place of pictures: nothing is decoded


@dataclass(frozen=True)
class Counted:
    """Of one picture: operations forward (of what gradients pass through), backward and frozen. learning:
    parameters; averaged: with a moving average."""

    forward: float
    backward: float
    frozen: float
    learning: int
    averaged: int

    @property
    def operations(self) -> float:
        """All that is useful: what is recomputed is not."""
        return self.forward + self.backward + self.frozen


def shards(config: Mapping[str, Any], assumed: Assumed) -> int:
    """Over how many GPUs the weights are shared out."""
    return {"fsdp": assumed.gpus, "hsdp": assumed.gpus_per_node}.get(config["parallel"]["mode"], 1)


def course(config: Mapping[str, Any], each: Counted, assumed: Assumed) -> dict[str, str]:
    """Operations, time, cost, and the traffic between GPUs."""
    run, rows = config["run"], config["data"]["batch_size"]
    per_step = rows * run["num_accum"]
    step_s = per_step * each.operations / (assumed.mfu * assumed.gpu.peak(run["precision"]))
    pictures = per_step * assumed.gpus * run["num_steps"]
    hours = step_s * run["num_steps"] / 3600
    rate = per_step * assumed.gpus / step_s
    found = {
        "operations per picture": f"{each.operations / 1e12:.3g} T (forward {each.forward / 1e12:.3g} T,"
        f" backward {each.backward / 1e12:.3g} T; frozen helpers {each.frozen / 1e12:.2g} T)",
        "pictures in all": f"{many(pictures)}, {pictures / assumed.pictures:.3g} epochs of a data set"
        f" of {many(assumed.pictures)} (--pictures)",
        "operations in all": f"{pictures * each.operations:.2e}",
        "step": f"{step_s:.3g} s for {per_step * assumed.gpus} pictures, {rate:.3g} pictures/s",
        "time": f"{hours:.3g} h = {hours / 24:.1f} days; {hours * assumed.gpus:.4g} {assumed.gpu.name}-hours",
        "cost": cost(hours * assumed.gpus, assumed),
    }
    return found | traffic(config, each, assumed, step_s) | data(config, rate, assumed)


def many(pictures: float) -> str:
    """A number of pictures, in millions where it is one of a large data set."""
    return f"{pictures / 1e6:.3g} M" if pictures >= 1e6 else f"{pictures:,.0f}"


def cost(gpu_hours: float, assumed: Assumed) -> str:
    """Of a run, where a price is known or given."""
    if assumed.price is not None:
        return f"{gpu_hours * assumed.price:.4g}, at {assumed.price:g} per GPU and hour, as typed"
    if assumed.gpu.price is None:
        return f"no price is known of {assumed.gpu.name}: give one per GPU and hour with --price"
    price = assumed.gpu.price
    return f"{gpu_hours * price:.4g} US$, at {price:g} per GPU and hour ({PRICED}: --price)"


def traffic(config: Mapping[str, Any], each: Counted, assumed: Assumed, step_s: float) -> dict[str, str]:
    """Between GPUs; nothing for one."""
    if assumed.gpus == 1:
        return {}
    share = shards(config, assumed)
    # Sharded weights are gathered in bf16 forward and backward in every micro-step, and gradients scattered
    # in fp32; then the shards' gradients are summed between the groups, which sends them twice.
    within = (4 * config["run"]["num_accum"] + 4) * each.learning * (1 - 1 / share)
    between = 2 * 4 * each.learning / share if assumed.gpus > share else 0.0
    return {
        "traffic per GPU within its group": f"{within / step_s / GB:.1f} GB/s",
        "traffic per GPU between groups": f"{between / step_s / GB:.1f} GB/s",
    }


def data(config: Mapping[str, Any], rate: float, assumed: Assumed) -> dict[str, str]:
    """What reading so many pictures per second takes."""
    if assumed.latents:
        return {"reading latents": f"{rate * latents_kb(config)[1] / 1e6:.2g} GB/s, nothing is decoded"}
    cores = rate / assumed.core_pictures
    return {
        "data cores": f"{cores:.2g} ({cores / assumed.gpus:.2f} per GPU)",
        "reading pictures": f"{rate * assumed.picture_kb / 1e6:.2g} GB/s",
    }


def latents_kb(config: Mapping[str, Any]) -> tuple[float, float]:
    """Of a square picture's latents, and of all that is precomputed of it, as of the released networks."""
    side = config["data"]["image_size_px"] / PIXELS_PER_LATENT
    alone = 2 * LATENT_CHANNELS * side**2 / 1e3
    return alone, alone + 2 * (TEXT_STATES + IMAGE_STATES) / 1e3


def storage(config: Mapping[str, Any], each: Counted, assumed: Assumed) -> dict[str, str]:
    """Bytes of data sets and checkpoints."""
    alone, whole = latents_kb(config)
    pictures = size(assumed.pictures * assumed.picture_kb * 1e3)
    found = {"pictures": f"{pictures}: {many(assumed.pictures)} of {assumed.picture_kb:.0f} kB each"}
    if config.get("model", {}).get("stage_c"):
        found["precomputed instead"] = (
            f"{size(assumed.pictures * whole * 1e3)} ({whole:.0f} kB each, of which latents {alone:.0f} kB)"
        )
    state = 12 * each.learning + 4 * each.averaged
    return found | {
        "checkpoint": f"{size(state)}, {state / assumed.disk_gb_s / GB:.2g} s at {assumed.disk_gb_s:g} GB/s"
    }


def size(count: float) -> str:
    """Bytes in words."""
    unit, name = next(((u, n) for u, n in ((TB, "TB"), (GB, "GB"), (1e6, "MB")) if count >= u), (1e3, "kB"))
    return f"{count / unit:.3g} {name}"
