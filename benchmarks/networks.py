"""Networks of released size with random weights, and the same ones in diffusers, on the same memory."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from modules import build
from modules.weights.layouts import diffusers as layout
from modules.weights.lazy import lazy_state
from train.config import ParallelConfig
from train.parallel.preparation import prepare
from train.parallel.world import World

Network = TypeVar("Network", bound=nn.Module)
CONFIGS = Path(__file__).parents[1] / "configs" / "model"
TEXT_TOKENS = 77
NARROW = {"c_cond": 64, "dropout": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "stage_c": {**NARROW, "c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]]},
    "stage_b": {**NARROW, "c_hidden": [32, 64, 64, 64], "nhead": [-1, -1, 2, 2], "blocks": [[1] * 4] * 2},
}


def released(stage: str, size: str, small: bool = False, **changes: Any) -> dict[str, Any]:
    """The config of a released network, with changes; small: few and narrow blocks in its place."""
    config = yaml.safe_load((CONFIGS / stage / f"{size}.yaml").read_text(encoding="utf-8"))["config"]
    return {**config, **changes, **(SMALL[stage] if small else {})}


def quarter_width(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same network with a quarter of the channels, and of the heads."""
    heads = config["nhead"]
    return {
        **config,
        "c_cond": config["c_cond"] // 4,
        "c_hidden": [c // 4 for c in config["c_hidden"]],
        "nhead": [max(1, n // 4) if n > 0 else n for n in heads],
    }


def random_network(stage: str, config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A network every weight of which counts, so that outputs of two of them can be compared."""
    with torch.device("meta"):
        network = build(stage, config).to(dtype)
    network.to_empty(device=device)
    rng = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("gamma", "beta")):
                spread = (parameter.numel() / parameter.shape[0]) ** -0.5  # keeps the size of what passes
                parameter.normal_(0, 0.5 * spread, generator=rng)
            else:
                parameter.normal_(0, 0.02, generator=rng)
    return network


def twin(network: Network) -> Network:
    """The same network once more, with the very same parameters: to be compiled while the other is not."""
    return copy.deepcopy(network, {id(t): t for t in (*network.parameters(), *network.buffers())})


def compiled_by_blocks(network: nn.Module) -> Any:
    """A twin compiled as training compiles it with parallel.compile=true."""
    other, place = twin(network), next(network.parameters()).device
    prepare([other], ParallelConfig(compile=True), World(0, 1, place))
    return other


def peer_of(stage: str, network: nn.Module) -> nn.Module:
    """diffusers' network with the weights of ours: on the same memory, so that both fit beside each other."""
    import diffusers

    config = layout.config_to_theirs(stage, network.config)  # type: ignore[arg-type]
    keywords = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        theirs: nn.Module = diffusers.StableCascadeUNet(**keywords)  # type: ignore[attr-defined]
    state = layout.to_theirs(stage, lazy_state(network.state_dict()))
    theirs.load_state_dict({name: tensor.read() for name, tensor in state.items()}, strict=True, assign=True)
    return theirs.train(network.training)


def peer_by_blocks(theirs: Network) -> Network:
    """A twin of diffusers' network compiled block by block: what is compiled once serves all of its kind."""
    other = twin(theirs)
    for module in other.modules():
        if type(module).__name__.startswith("SDCascade") and type(module).__name__.endswith("Block"):
            module.compile()
    return other


def conditions(
    stage: str, config: Mapping[str, Any], shape: Sequence[int], place: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """What a stage is told of latents of this shape; Stage B sees compressor latents of 24 to its 256."""
    if stage == "stage_c":
        return stage_c_conditions(config, shape[0], place, dtype)
    return stage_b_conditions(config, shape[0], max(1, shape[-1] * 24 // 256), place, dtype)


def stage_c_conditions(
    config: Mapping[str, Any], batch: int, place: torch.device, dtype: torch.dtype
) -> dict:
    """Random text and picture embeddings."""
    shapes = {
        "clip_text": (TEXT_TOKENS, config["c_clip_text"]),
        "clip_text_pooled": (1, config["c_clip_text_pooled"]),
        "clip_img": (1, config["c_clip_img"]),
    }
    return random_inputs(shapes, batch, place, dtype)


def stage_b_conditions(
    config: Mapping[str, Any], batch: int, side: int, place: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Random pooled text and compressor latents of `side` pixels."""
    shapes = {"effnet": (config["c_effnet"], side, side), "clip": (1, config["c_clip"])}
    return random_inputs(shapes, batch, place, dtype)


def random_inputs(
    shapes: Mapping[str, Sequence[int]], batch: int, place: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Tensors [batch, *shape], the same in every run."""
    rng = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=rng, device="cpu").to(place, dtype)

    return {name: random(*shape) for name, shape in shapes.items()}


def call_peer(theirs: nn.Module, x: Tensor, r: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """diffusers' network called with our names; it wants the noise condition in the latents' format."""
    given = {"clip_text_pooled" if name == "clip" else name: value for name, value in inputs.items()}
    return theirs(x, r.to(x.dtype), **given, return_dict=False)[0]


def operations(stage: str, config: Mapping[str, Any], shape: Sequence[int]) -> float:
    """Operations (two per multiplication with addition) of a forward pass over latents of this shape.

    Counted on the network without memory; a backward pass takes twice as many.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        inputs = conditions(stage, config, shape, torch.device("meta"), torch.float32)
        build(stage, config)(torch.empty(*shape), torch.empty(shape[0]), **inputs)
    return float(counter.get_total_flops())


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two results, relative to the largest value."""
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
