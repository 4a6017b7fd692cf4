"""The networks and their blocks against the recorded outputs of the published ones."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modules import blocks, mixing
from modules.adapters.controlnet import ControlResBlock
from modules.blocks import Conditions, timestep_embedding
from modules.response_norm import GlobalResponseNorm
from modules.stage_a import StageAResBlock
from tests.oracle.network_cases import Case, files, is_blocks, is_lora, runs

pytestmark = pytest.mark.oracle


class OneNetwork:
    """Holds the network of one case at a time: the largest take most of the machine's memory."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.network: Any = None

    def get(self, case: Case) -> Any:
        if self.path != case.path:
            self.network = None  # freed before the next one is made
            self.network, self.path = case.network(), case.path
        return self.network


@pytest.fixture(scope="module")
def loaded() -> Iterator[OneNetwork]:
    with torch.no_grad():
        yield OneNetwork()


def embeds_only(run: str) -> bool:
    """The run that records only the timestep embedding of r."""
    return run == "embed"


def test_there_are_recorded_cases() -> None:
    assert runs("StageA") and runs("StageB") and runs("StageC") and list(files(is_blocks))


@pytest.mark.parametrize(("case", "run"), runs("StageB", "StageC"))
def test_diffusion_network(case: Case, run: str, loaded: OneNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = loaded.get(case), case.inputs(run)
    if embeds_only(run):
        case.check(run, "r_embed", timestep_embedding(inputs["r"], network.sizes.c_r))
        return
    companions = {name: inputs.get(name) for name in network.sizes.t_conds}
    case.check(run, "r_embed", network.embed_timesteps(inputs["r"], companions))
    if "clip_tokens" in case.part(f"out.{run}"):
        case.check(run, "clip_tokens", network.embed_conditions(*condition_arguments(case, inputs)))
    recorded = case.part(f"out.{run}")
    loose = json.loads(case.facts["loose_atol_own_r_embedding"])[f"out.{run}.sample"]
    torch.testing.assert_close(network(**inputs), recorded["sample"], atol=loose, rtol=1e-5)
    # Sines of arguments up to 1e4 differ by 4e-4 between right implementations; with the recorded ones fed,
    # the rest of the network must agree to rounding.
    monkeypatch.setattr(network, "embed_timesteps", lambda r, companions: recorded["r_embed"])
    case.check(run, "sample", network(**inputs))


def condition_arguments(case: Case, inputs: dict[str, Any]) -> list[Any]:
    if case.facts["model_class"] == "StageB":
        return [inputs["clip"]]
    return [inputs[name] for name in ("clip_text", "clip_text_pooled", "clip_img")]


@pytest.mark.parametrize(("case", "run"), runs("StageA"))
def test_stage_a(case: Case, run: str, loaded: OneNetwork) -> None:
    network, inputs = loaded.get(case), case.inputs(run)
    found: dict[str, torch.Tensor] = {}
    if run == "lookup":
        found["vectors"] = network.vquantizer.lookup(inputs["indices"])
    elif run == "decode":
        found["image"] = network.decode(inputs["latents"])
    elif run == "encode":
        found["latents"] = network.encode_unquantized(inputs["image"])
    else:
        reconstruction, code = network(inputs["image"])
        # The published loss adds the commitment with the weight that its training uses.
        found["vq_loss"] = code.codebook_loss + 0.25 * code.commitment_loss
        found |= {"quantized": code.latents, "latents": code.unquantized, "indices": code.indices}
        found |= {"image": network.decode(code.unquantized), "image_quantized": reconstruction}
    recorded = case.part(f"out.{run}")
    assert recorded.keys() <= found.keys()
    for name in recorded:
        case.check(run, name, found[name])


@pytest.mark.parametrize(("case", "run"), runs("EfficientNetEncoder"))
def test_semantic_compressor(case: Case, run: str, loaded: OneNetwork) -> None:
    case.check(run, "latents", loaded.get(case)(case.inputs(run)["x"]))


@pytest.mark.parametrize(("case", "run"), runs("Previewer"))
def test_previewer(case: Case, run: str, loaded: OneNetwork) -> None:
    case.check(run, "image", loaded.get(case)(case.inputs(run)["x"]))


@pytest.mark.parametrize(("case", "run"), runs("Discriminator"))
def test_discriminator(case: Case, run: str, loaded: OneNetwork) -> None:
    """The published one ends in a sigmoid; ours gives the logits that a hinge loss needs."""
    inputs = case.inputs(run)
    case.check(run, "p", loaded.get(case)(inputs["x"], inputs.get("cond")).sigmoid())


@pytest.mark.parametrize("case", [pytest.param(Case(path), id=path.stem) for path in files(is_lora)])
def test_base_network_of_a_lora(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    network = case.network()
    for run in json.loads(case.facts["runs"]):
        recorded = case.part(f"out.{run['run']}")
        monkeypatch.setattr(network, "embed_timesteps", lambda r, companions, e=recorded["r_embed"]: e)
        with torch.no_grad():
            sample = network(**case.inputs(run["run"]))
        torch.testing.assert_close(sample, recorded["sample_without_lora"], atol=5e-5, rtol=1e-5)


BLOCKS = {
    "ResBlock": blocks.ResBlock,
    "AttnBlock": blocks.AttnBlock,
    "FeedForwardBlock": blocks.FeedForwardBlock,
    "TimestepBlock": blocks.TimestepBlock,
    "GlobalResponseNorm": GlobalResponseNorm,
    "LayerNorm2d": mixing.LayerNorm2d,
    "UpDownBlock2d": blocks.UpDownBlock2d,
    "CNetResBlock": ControlResBlock,
}


def block_cases() -> list[Any]:
    """Parameters (tensors of the case, its description) of every single block."""
    found = []
    for path in files(is_blocks):
        case = Case(path)
        for name, spec in json.loads(case.facts["spec"]).items():
            found.append(pytest.param(case.part(name), spec, id=f"{path.stem}-{name}"))
    return found


def make_block(spec: dict[str, Any], weights: dict[str, Any]) -> torch.nn.Module:
    if "gammas" in weights:  # Stage A's block has the name of the U-Net's
        return StageAResBlock(*spec["args"])
    renamed = {"elementwise_affine": None, "conds": "t_conds"}  # norms never have parameters of their own
    keywords = {renamed.get(key, key): value for key, value in spec["kwargs"].items()}
    keywords.pop(None, None)
    return BLOCKS[spec["block"]](*spec["args"], **keywords)


@pytest.mark.parametrize(("tensors", "spec"), block_cases())
def test_block(tensors: dict[str, torch.Tensor], spec: dict[str, Any]) -> None:
    weights = {key.removeprefix("weights."): t for key, t in tensors.items() if key.startswith("weights.")}
    block = make_block(spec, weights)
    block.load_state_dict(weights, strict=True)
    given = {key.removeprefix("in."): tensor for key, tensor in tensors.items() if key.startswith("in.")}
    x, nothing = given["x"], torch.empty(0)
    if isinstance(block, blocks.Block):
        cond = Conditions(given.get("t", nothing), given.get("kv", nothing), given.get("x_skip"))
        found = block.eval()(x, cond)
    else:
        found = block.eval()(x)
    torch.testing.assert_close(found, tensors["out"], atol=2e-5, rtol=1e-5)
