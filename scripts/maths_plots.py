"""Draws the pictures of docs/maths.md, from gdf itself.

python -m scripts.maths_plots                 # into docs/images
python -m scripts.maths_plots out=FOLDER
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch

import gdf
from modules.key_values import settings_from
from modules.schema import ConfigError, one_line
from scripts.mixture import GaussianMixture

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parents[1] / "docs" / "images"
GREY = "#828b98"  # of axes and words: to be read on white and on black alike
COLOURS = ("#4a7de8", "#e07b39", "#2fa572", "#c2518f", "#8d76dc", "#b3922a", "#3aa3b8")
STYLE: Any = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), GREY),
    **{"axes.titlecolor": GREY, "axes.titlesize": 11, "font.size": 10, "grid.color": GREY, "grid.alpha": 0.2},
    **{"axes.grid": True, "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8},
    **{"svg.hashsalt": "kaskade", "savefig.transparent": True},  # the same file at every run
}
SCHEDULES: dict[str, gdf.BaseSchedule] = {
    "cosine (released)": gdf.CosineSchedule(),
    "Stable Diffusion": gdf.StableDiffusionSchedule(),
    "rectified flow": gdf.RectifiedFlowsSchedule((-10, 10)),
    "EDM, sampling": gdf.EDMSampleSchedule(),
    "linear": gdf.LinearSchedule((-10, 10)),
}


def schedules(left: Any, right: Any) -> None:
    """log-SNR over time, and how often training sees each."""
    times = torch.linspace(0, 1, 401, dtype=torch.float64)
    for name, schedule in SCHEDULES.items():
        left.plot(times, schedule(times), label=name)
    left.set(xlabel="t", ylabel="log-SNR λ", title="schedules", ylim=(-13, 13), xlim=(0, 1))
    left.legend(loc="upper right")
    chance = torch.Generator().manual_seed(0)
    adaptive = gdf.AdaptiveTrainSchedule((-10, 10), buckets=40)
    centres = torch.linspace(-9.75, 9.75, 40)
    adaptive.update_buckets(centres, 0.1 + torch.exp(-((centres - 1) ** 2) / 12), beta=0.0)
    drawn = {name: SCHEDULES[name] for name in ("cosine (released)", "Stable Diffusion", "rectified flow")}
    for name, schedule in {**drawn, "EDM, training": gdf.EDMTrainSchedule(), "adaptive": adaptive}.items():
        seen = torch.histc(schedule(400_000, generators=chance), 120, -12, 12) / 400_000 * 5
        colour = (
            COLOURS[list(SCHEDULES).index(name)] if name in SCHEDULES else COLOURS[5 + (name == "adaptive")]
        )
        right.plot(torch.linspace(-11.9, 11.9, 120), seen, label=name, color=colour)
    right.set(
        xlabel="log-SNR λ", ylabel="density", title="what training draws", xlim=(-12, 12), ylim=(0, 0.32)
    )
    right.legend(loc="upper left")


def shift(left: Any, right: Any) -> None:
    """Shifted schedules, and where their steps lie."""
    times, schedule = torch.linspace(0, 1, 401, dtype=torch.float64), gdf.CosineSchedule()
    for row, (factor, colour) in enumerate(zip((1.0, 2.0, 4.0), COLOURS, strict=False)):
        left.plot(times, schedule(times, factor), label=f"shift {factor:g}", color=colour)
        steps = schedule(torch.linspace(1, 0, 21, dtype=torch.float64), factor)
        right.plot(steps, torch.full_like(steps, row), "|", markersize=16, markeredgewidth=2, color=colour)
    left.set(xlabel="t", ylabel="log-SNR λ", title="λ − 2 ln(shift)", xlim=(0, 1))
    left.legend(loc="upper right")
    right.set(xlabel="log-SNR λ", title="20 steps from noise (left) to picture (right)", ylim=(-0.6, 2.6))
    right.set_yticks([0, 1, 2], ["shift 1", "shift 2", "shift 4"])
    right.grid(False, axis="y")


def targets(left: Any, right: Any) -> None:
    """What an error of the network does to the picture that it implies, and how much errors count."""
    log_snr = torch.linspace(-8, 8, 401, dtype=torch.float64)
    a, b = gdf.VPScaler()(log_snr)
    x, one = torch.zeros_like(a), torch.ones_like(a)
    kinds = {"noise ε": gdf.EpsilonTarget(), "signal x₀": gdf.X0Target(), "velocity v": gdf.VTarget()}
    for name, target in {**kinds, "flow ε − x₀": gdf.RectifiedFlowsTarget()}.items():
        moved = target.x0(x, one, log_snr, a, b) - target.x0(x, 0 * one, log_snr, a, b)
        left.semilogy(log_snr, moved.abs(), label=name)
    left.set(xlabel="log-SNR λ", title="|error of x₀| for an error of 1 in the prediction", ylim=(0.01, 60))
    left.legend(loc="upper right")
    weights: dict[str, gdf.BaseLossWeight] = {
        "constant": gdf.ConstantLossWeight(),
        "P2 (released)": gdf.P2LossWeight(),
        "min-SNR, 5": gdf.ComposedLossWeight(mul=gdf.MinSNRLossWeight(), div=gdf.SNRLossWeight()),
        "debiased": gdf.DebiasedLossWeight(),
        "sech": gdf.SechLossWeight(),
    }
    for name, weight in weights.items():
        right.semilogy(log_snr, weight(log_snr), label=name)
    right.set(xlabel="log-SNR λ", title="weights of a loss of ε", ylim=(0.003, 60))
    right.legend(loc="upper right")


def conditions(left: Any, right: Any) -> None:
    """The numbers by which networks are told the noise, and what the scalers make of it."""
    log_snr = torch.linspace(-10, 10, 401, dtype=torch.float64)
    kinds: dict[str, gdf.BaseNoiseCond] = {
        "cosine t (released)": gdf.CosineTNoiseCond(),
        "Stable Diffusion t": gdf.StableDiffusionNoiseCond(),
        "sigmoid: noise variance": gdf.SigmoidNoiseCond(),
        "rectified flow: 1 − t": gdf.RectifiedFlowsNoiseCond(),
        "EDM: ln σ / 4": gdf.EDMNoiseCond(),
    }
    for name, scaler in {"VP": gdf.VPScaler(), "LERP": gdf.LERPScaler()}.items():
        for part, values, line in zip("ab", scaler(log_snr), ("-", "--"), strict=True):
            left.plot(log_snr, values, line, label=f"{part} of {name}", color=COLOURS[name == "LERP"])
    left.set(xlabel="log-SNR λ", title="scalers: x = a x₀ + b ε")
    left.legend(loc="center right")
    for name, condition in kinds.items():
        right.plot(log_snr, condition(log_snr), label=name)
    right.set(xlabel="log-SNR λ", title="noise conditions")
    right.legend(loc="lower left")


def samplers(left: Any, right: Any) -> None:
    """Paths from noise to a mixture of three normal distributions, and how far off each sampler ends."""
    mixture = GaussianMixture()
    process = mixture.process()
    starts = torch.special.ndtri(torch.linspace(0.03, 0.97, 24, dtype=torch.float64))[:, None]
    for name, colour, line in (("heun", COLOURS[0], "-"), ("ddpm", COLOURS[1], "-")):
        kept = starts if name == "heun" else starts[2::5]
        paths = mixture.sampled(process, name, 200, kept)
        across = process.schedule(torch.linspace(1, 0, 201, dtype=torch.float64))
        left.plot(across, paths[:, :, 0], line, color=colour, linewidth=0.9, alpha=0.85)
        left.plot([], [], line, color=colour, label="flow (ODE)" if name == "heun" else "ancestral (ddpm)")
    left.set(
        xlabel="log-SNR λ",
        ylabel="x",
        title="from noise to data, one number each",
        xlim=(-8, 8),
        ylim=(-2.6, 3.9),
    )
    left.legend(loc="upper left")
    counts, mixture = (4, 6, 8, 12, 16, 24, 32, 48, 64), GaussianMixture(std=0.3)
    for name in ("euler", "heun", "dpmpp_2m"):
        calls = [2 * steps if name == "heun" else steps for steps in counts]
        errors = [mixture.error(process, name, steps) for steps in counts]
        shown = {"euler": "Euler, DDIM", "heun": "Heun", "dpmpp_2m": "DPM-Solver++(2M)"}[name]
        right.loglog(calls, errors, "o-", markersize=4, label=shown)
    right.set(xlabel="calls of the network", title="distance from the end of the exact flow", xlim=(3.5, 150))
    right.set_xticks([4, 8, 16, 32, 64, 128], ["4", "8", "16", "32", "64", "128"])
    right.minorticks_off()
    right.legend(loc="lower left")


def guidance(left: Any, right: Any) -> None:
    """Contrast under guidance and rescaling, and what it does to a distribution."""
    scales = torch.linspace(1, 10, 40).tolist()
    chance = torch.Generator().manual_seed(0)
    conditional, unconditional = torch.randn(2, 1, 4096, generator=chance)
    unconditional = 0.8 * conditional + 0.6 * unconditional  # they agree for the most part
    for share in (0.0, 0.7, 1.0):
        guide = gdf.Guidance(cfg_rho=share)
        left.plot(
            scales,
            [guide.combine(conditional, unconditional, s).std() for s in scales],
            label=f"rescale {share:g}",
        )
    left.set(xlabel="guidance", title="standard deviation of the guided prediction")
    left.legend(loc="upper left")
    wide, narrow = GaussianMixture(), GaussianMixture((0.1, 1.1), (0.5, 0.5))
    process = wide.process()
    starts = torch.special.ndtri(torch.linspace(0.001, 0.999, 1500, dtype=torch.float64))[:, None]
    for scale in (1.0, 2.0, 4.0):
        ends = wide.guided(process, narrow, scale, starts)
        counts = torch.histc(ends.float(), 70, -0.9, 1.9) / len(starts) / 0.04
        right.plot(torch.linspace(-0.88, 1.88, 70), counts, label=f"guidance {scale:g}")
    right.set(xlabel="x₀", ylabel="density", title="of three peaks, the prompt names the right two")
    right.legend(loc="upper left")


PLOTS: dict[str, Callable[[Any, Any], None]] = {
    "schedules": schedules,
    "shift": shift,
    "conditions": conditions,
    "targets": targets,
    "samplers": samplers,
    "guidance": guidance,
}


@dataclass
class Settings:
    """out: the folder of the pictures."""

    out: str = str(IMAGES)


def draw(name: str, folder: Path) -> Path:
    """Draw one picture of two panels; returns its file."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.5), layout="constrained")
        PLOTS[name](left, right)
        path = folder / f"maths_{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


def main(arguments: list[str]) -> int:
    """Draw all; returns the exit status."""
    try:
        folder = Path(settings_from(Settings, arguments).out)
        folder.mkdir(parents=True, exist_ok=True)
    except (ConfigError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    for name in PLOTS:
        print(draw(name, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
