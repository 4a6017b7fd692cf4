"""The recorded outputs of the published networks: found by their content, and their weights made by rule."""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import modules

FOLDER = Path(os.environ.get("KASKADE_ORACLE") or Path(__file__).parent.parent / "golden")
NETWORKS = {
    "StageA": "stage_a",
    "StageB": "stage_b",
    "StageC": "stage_c",
    "EfficientNetEncoder": "semantic_compressor",
    "Previewer": "previewer",
    "Discriminator": "discriminator",
    "ControlNet": "controlnet",
    "MicroResNet": "saliency",
    "pidinet": "pidinet",
}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def fill(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The value of a weight by the oracle's rule, from nothing but its name, its shape and the seed."""
    *_, parent, leaf = ["", *name.split(".")]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    key = np.array([zlib.crc32(name.encode()), seed], np.uint64)
    draws = np.random.Philox(key=key).random_raw(math.prod(shape)) >> np.uint64(40)
    low, high = limits(name, parent, leaf, shape)
    values = low + (high - low) * (draws.astype(np.float64) * 2.0**-24)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def limits(name: str, parent: str, leaf: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """The range that a weight is drawn from."""
    if leaf == "running_var":
        return 0.5, 1.5
    if leaf == "running_mean" or leaf.endswith("bias"):
        return -0.25, 0.25
    if leaf in ("gamma", "beta", "gammas"):
        return -0.5, 0.5
    if len(shape) < 2:
        return 0.5, 1.5
    gain = 0.5 if parent.startswith("mapper") else 1.09375 if name.startswith("backbone.") else 1.0
    bound = gain * math.sqrt(3.0 / math.prod(shape[1:]))
    return -bound, bound


@dataclass(frozen=True)
class Case:
    """One file: a network with its weights, and runs of it."""

    path: Path

    @cached_property
    def facts(self) -> dict[str, str]:
        return metadata(self.path)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        with safe_open(self.path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def network(self) -> Any:
        """The network with the recorded weights, in eval mode; one copy of the weights in memory."""
        with torch.device("meta"):
            network = modules.build(NETWORKS[self.facts["model_class"]], json.loads(self.facts["config"]))
        if self.facts.get("weights_stored") == "true":
            weights = self.part("weights")
        else:
            seed = int(self.facts["fill_seed"])
            shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            weights = {name: fill(name, shape, seed) for name, shape in shapes.items()}
        if self.facts.get("heavy") != "true":
            assert checksum(weights) == self.facts.get(
                "weights_sha256", self.facts.get("base_weights_sha256")
            )
        network.load_state_dict(weights, strict=True, assign=True)
        return network.eval()

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below `prefix`, by the rest of their names."""
        start = prefix + "."
        return {
            key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)
        }

    def inputs(self, run: str) -> dict[str, Any]:
        """The arguments of a run; lists keep None where nothing is recorded."""
        structure = next(each["inputs"] for each in json.loads(self.facts["runs"]) if each["run"] == run)
        return {name: self._value(f"in.{run}.{name}", spec) for name, spec in structure.items()}

    def _value(self, key: str, spec: Any) -> Any:
        if isinstance(spec, list):
            return [self._value(f"{key}.{number}", item) for number, item in enumerate(spec)]
        return None if spec is None else self.tensors[key]

    def check(self, run: str, name: str, found: Tensor) -> None:
        """Compare with the recorded output, within the tolerance that the file suggests."""
        key = f"out.{run}.{name}"
        recorded = self.tensors[key]
        atol = json.loads(self.facts["suggested_atol"]).get(key, 0.0)
        found = found.detach().reshape(recorded.shape)
        torch.testing.assert_close(found, recorded, atol=atol, rtol=1e-5 if atol else 0.0)


def checksum(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def is_network(facts: dict[str, str]) -> bool:
    return facts.get("model_class") in NETWORKS


def is_lora(facts: dict[str, str]) -> bool:
    return "lora_targets" in facts


def is_blocks(facts: dict[str, str]) -> bool:
    spec = json.loads(facts.get("spec", "null"))
    return isinstance(spec, dict) and all("block" in case for case in spec.values())


def files(understands: Any) -> Iterator[Path]:
    """The recorded files whose metadata `understands` accepts."""
    return (path for path in sorted(FOLDER.rglob("*.safetensors")) if understands(metadata(path)))


def runs(*classes: str) -> list[Any]:
    """Parameters (case, run) of all runs of networks of these classes; the heavy ones are marked slow."""
    found = []
    for path in files(lambda facts: facts.get("model_class") in classes and not is_lora(facts)):
        case = Case(path)
        marks = [pytest.mark.slow] if case.facts.get("heavy") == "true" else []
        for run in json.loads(case.facts["runs"]):
            found.append(pytest.param(case, run["run"], id=f"{path.stem}-{run['run']}", marks=marks))
    return found
