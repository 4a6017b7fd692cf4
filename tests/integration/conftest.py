"""Shards of small pictures, and a real recipe, as small as can be, that trains on them in a moment."""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from modules import build
from modules.weights import save_network
from tests.integration.recipe_cases import STAGE_C
from tests.integration.tiny_experiment import Call, write_tiny_experiment
from train import __main__ as cli

if TYPE_CHECKING:
    from tests.integration.latents_cases import Made

NUM_PICTURES = 24
SIZE_PX = 32


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 12 pictures of 32 x 32 px: a colour and some noise each, with captions."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:06d}.tar", "w") as tar:
            for i in range(NUM_PICTURES // 2):
                pixels = rng.uniform(0, 255, 3) + rng.normal(0, 20, (SIZE_PX, SIZE_PX, 3))
                picture = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(picture, "PNG")
                facts = json.dumps({"width_px": SIZE_PX, "height_px": SIZE_PX}).encode()
                members = {"png": picture.getvalue(), "txt": f"picture {i}".encode(), "json": facts}
                for ending, data in members.items():
                    info = tarfile.TarInfo(f"{shard:03d}{i:03d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.fixture
def call(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `python -m train` in this process, with an experiment `tiny` beside those of the project."""
    configs = write_tiny_experiment(tmp_path, shards)
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: cli.main([f"--config-dir={configs}", *arguments])


@pytest.fixture(scope="module")
def stage_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a Stage C whose output is not 0 as a fresh one's is, so that its inside matters."""
    torch.manual_seed(0)
    network = build("stage_c", STAGE_C)
    nn.init.normal_(network.get_parameter("clf.1.weight"), std=0.1)
    path = tmp_path_factory.mktemp("base") / "stage_c.safetensors"
    save_network(path, network, "stage_c", {})
    return path


class ColourNet(nn.Module):
    """Guesses the mean colour of noisy pictures. [B, 3, H, W] -> [B, 3]"""

    def __init__(self, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = {"width": width, "dropout": dropout}
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.GELU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.GELU(), nn.Dropout(dropout))
        self.last = nn.Linear(width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.first(images)).mean((2, 3)))

    def shard_units(self) -> list[nn.Module]:
        return [self.first, self.second]


class ColourRecipe:
    """One player with a state of its own: the mean of its losses, which scales them."""

    players = ("model",)

    def __init__(self, dropout: float = 0.1, bad_steps: range = range(0)) -> None:
        self.dropout, self.bad_steps = dropout, bad_steps
        self.scale, self.pending, self.step = 1.0, [], 0

    def build(self, device: torch.device) -> None:
        self.net = ColourNet(dropout=self.dropout).to(device)

    def prepared(self) -> list[nn.Module]:
        return list(self.networks().values())

    def helpers(self) -> list[nn.Module]:
        return []

    def trainable(self) -> dict[str, nn.Module]:
        return {"model": self.net}

    def networks(self) -> dict[str, nn.Module]:
        return {"colour_net": self.net}

    def facts(self, name: str) -> dict[str, Any]:
        return {"colour": "mean"}

    def loss(self, player: str, batch: Any, rng: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        images = batch["images"].float() / 255
        noise = torch.stack([torch.randn(images.shape[1:], generator=g) for g in rng.samples])
        guess = self.net(images + 0.1 * noise.to(images.device)).float()
        error = (guess - images.mean((2, 3))).square().mean()
        self.pending.append(error.detach())
        if self.step in self.bad_steps:
            error = error * float("nan")
        return error * self.scale, {"error": error.detach()}

    @torch.no_grad()
    def sample(self, batch: Any, rng: Any) -> dict[str, Tensor]:
        images = batch["images"].float() / 255
        guess = self.net(images).float()[:, :, None, None].expand_as(images)
        return {"original": images, "guess": guess.clamp(0, 1)}

    def after_step(self, step: int) -> None:
        from train.parallel import ranks

        mean = ranks.mean(torch.stack(self.pending).mean())
        self.scale = 0.9 * self.scale + 0.1 * float(1 / (1 + mean))
        self.pending.clear()
        self.step = step + 1

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale, self.step = state["scale"], state["step"]

    def export(self, folder: Path) -> None:
        (folder / "exported.txt").write_text("beside the weights")


@pytest.fixture
def colour_recipe() -> type[ColourRecipe]:
    return ColourRecipe


@pytest.fixture
def plain_config(shards: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes the settings of a short run as plain data; keywords change one group each."""

    def make(**changes: dict[str, Any]) -> dict[str, Any]:
        settings: dict[str, dict[str, Any]] = {
            "run": {
                "dir": str(tmp_path / "run"),
                "num_steps": 6,
                "log_every": 1,
                "save_every": 3,
                "num_samples": 2,
                "device": "cpu",
                "ema": {"decay": 0.5},
            },
            "recipe": {"name": "colour"},
            "data": {
                "shards": str(shards),
                "image_size_px": SIZE_PX,
                "multiple_px": SIZE_PX,
                "aspect_ratios": ["1/1"],
                "batch_size": 4,
                "num_workers": 0,
                "split": "samples",
            },
            "optim": {"lr": 0.01},
        }
        for group, entries in changes.items():
            settings.setdefault(group, {}).update(entries)
        return {"name": "test", **settings}

    return make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> "Made":
    """Made once for all files that test latents: that takes longer than most of what they do."""
    from tests.integration.latents_cases import Made  # slow to load, for workers too

    return Made(tmp_path_factory.mktemp("precomputed"))
