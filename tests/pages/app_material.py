"""A cascade of very small, untrained networks with adapters, in one folder of runs, as the page finds it."""

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.adapter_files import write_controlnets, write_ip_adapter, write_loras


def write_runs(tiny_runs: Path, folder: Path) -> Path:
    """The runs of `tiny_runs` with LoRAs, ControlNets and an IP-Adapter beside them; returns the folder."""
    shutil.copytree(tiny_runs, folder, dirs_exist_ok=True)
    write_loras(tiny_runs, folder)
    write_controlnets(folder)
    write_ip_adapter(folder, folder / "image_encoder")
    return folder


def noise_png(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    """A picture of noise as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()
