"""An experiment that trains a previewer of almost nothing in two steps, as a file of settings."""

from collections.abc import Callable
from pathlib import Path

Call = Callable[..., int]  # command line -> exit status

EXPERIMENT = """\
# @package _global_
# A previewer of almost nothing.
name: tiny
recipe: {{name: previewer}}
model:
  semantic_compressor:
    allow_random: true
    config: {{c_latent: 4, backbone: {{stages: [[fused, 1, 3, 2, 24, 24, 1]], c_last: 32}}}}
  previewer: {{config: {{c_in: 4, c_hidden: 16}}}}
data: {{shards: {shards}, image_size_px: 32, aspect_ratios: [1/1], batch_size: 4, num_workers: 0}}
run: {{dir: {out}, num_steps: 2, log_every: 1, save_every: 2, sample_every: 2, num_samples: 2, device: cpu}}
"""


def write_tiny_experiment(folder: Path, shards: Path) -> Path:
    """Write the experiment `tiny`, whose run goes to folder/out; returns the folder for --config-dir."""
    path = folder / "configs" / "experiment" / "tiny.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(EXPERIMENT.format(shards=shards, out=folder / "out"))
    return folder / "configs"
