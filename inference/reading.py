"""Networks read from their files the way they are to be kept: number format, place, bits of a weight."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from inference.naming import naming
from inference.offload import Offloaded
from modules.adapters.four_bit import bitsandbytes
from modules.adapters.quantised import Format, quantise
from modules.compiling import compile_blocks, compile_whole
from modules.encoders import ImageEncoder, TextEncoder, cached_folder
from modules.schema import nearest
from modules.unet import UNet
from modules.weights import encoder_folder, find_weights, load_network
from modules.weights.imagenet import ENDING as IMAGENET
from modules.weights.lazy import LazyTensor, lazy_state
from modules.weights.loading import check_tensors, pick_part, skeleton
from modules.weights.sources import open_source

Offload = Literal["none", "stage", "block"]
Quantize = Format | dict[str, Format | None] | None
Compile = bool | Literal["graphs"]
QUANTISABLE = ("stage_c", "stage_b", "text_encoder")
STAGES = ("stage_c", "stage_b")
ENCODERS: dict[str, type[TextEncoder] | type[ImageEncoder]] = {
    "text_encoder": TextEncoder,
    "image_encoder": ImageEncoder,
}
IN_HALF = (*STAGES, *ENCODERS)  # what computes in fp16 without overflow
State = Mapping[str, LazyTensor]


@dataclass(frozen=True)
class Keeping:
    """How networks are kept.

    device: where they compute. dtype: of their floating weights; fp16 only where that is safe, the others'
    are in fp32 then. offload: "none": on the device from their first use on; "stage": there only while they
    are in use, in the CPU's memory otherwise (of a CPU: in their files); "block": the same, and of Stage B
    and Stage C only the block that computes. quantize: few bits for the linear layers of these networks.
    compile: the blocks of Stage C and Stage B, not with "block"; the first picture takes minutes longer.
    "graphs": both networks whole, which a GPU replays as CUDA graphs; not with offloading. ema: of a file
    with plain and averaged weights, the averaged ones.
    ValueError for what does not exist or cannot be had here.
    """

    device: torch.device
    dtype: torch.dtype
    offload: Offload = "none"
    quantize: Mapping[str, Format] = field(default_factory=dict)
    compile: Compile = False
    ema: bool = True

    def __post_init__(self) -> None:
        if self.offload not in get_args(Offload):
            raise ValueError(
                f"offload: found {self.offload!r}; {nearest(str(self.offload), get_args(Offload))}"
            )
        self._check_compile()
        for name, kind in self.quantize.items():
            if name not in QUANTISABLE:
                raise ValueError(f"quantize: found {name!r}; {nearest(name, QUANTISABLE)}")
            if kind not in get_args(Format):
                raise ValueError(f"quantize.{name}: found {kind!r}; {nearest(str(kind), get_args(Format))}")
        if "nf4" in self.quantize.values():
            with naming("quantize"):
                bitsandbytes()
            if self.device.type == "mps":  # its kernels for it are no part of the library, but of a hub
                raise ValueError("quantize: found nf4, which does not work on mps; use int8")

    def _check_compile(self) -> None:
        if self.compile not in (False, True, "graphs"):
            raise ValueError(f"compile: expected true, false or graphs, found {self.compile!r}")
        if self.compile and self.offload == "block":
            raise ValueError("compile: compiled blocks cannot be offloaded by block; set offload=stage")
        if self.compile == "graphs" and self.offload == "stage":
            raise ValueError("compile: graphs need weights that stay on the device; set offload=none")

    def read(self, name: str, source: str) -> tuple[nn.Module, Offloaded | None]:
        """Network `name`, frozen, from its file or folder, and what lends its weights if they are elsewhere.

        Raises ValueError, FileNotFoundError.
        """
        network, offloaded = self._read(name, source)
        if self.compile and isinstance(network, UNet):
            (compile_whole if self.compile == "graphs" else compile_blocks)(network)
        return network, offloaded

    def number_format(self, name: str) -> torch.dtype:
        """Of a network's floating weights."""
        return torch.float32 if self.dtype == torch.float16 and name not in IN_HALF else self.dtype

    def _read(self, name: str, source: str) -> tuple[nn.Module, Offloaded | None]:
        kind, dtype = self.quantize.get(name), self.number_format(name)
        if self.offload == "none" and kind is None and name not in ENCODERS:
            return frozen(load_network(source, name, device=self.device, dtype=dtype, ema=self.ema)), None
        network, state = self._built(name, source)
        if kind is not None:
            self._fill_quantised(network, state, kind)
            state = lazy_state(network.state_dict())
        if self.offload == "none":
            return network.to(self.device), None
        units = network.units_to_wait() if self.offload == "block" and isinstance(network, UNet) else []
        in_files = self.device.type == "cpu"
        return network, Offloaded(network, state, self.device, in_files=in_files, units=units)

    def _built(self, name: str, source: str) -> tuple[nn.Module, State]:
        """A network, perhaps without weights, and how to read these."""
        dtype = self.number_format(name)
        if name in ENCODERS:
            encoder = frozen(ENCODERS[name](source=source, dtype=dtype))
            return encoder, self._of_file(encoder, name, source) or lazy_state(encoder.state_dict())
        file = find_weights(source, name)
        if file.suffix == IMAGENET:
            network = frozen(load_network(file, name, dtype=dtype))
            return network, lazy_state(network.state_dict())
        part = pick_part(file, name, self.ema)
        network = frozen(skeleton(part))
        check_tensors(part.origin or name, network.state_dict(), part.state)
        return network, {key: tensor.to(dtype) for key, tensor in part.state.items()}

    def _of_file(self, encoder: nn.Module, name: str, source: str) -> State:
        """The weights of an encoder in its folder's file; {} where it has none, or calls them otherwise."""
        with suppress(FileNotFoundError):
            folder = Path(source) if Path(source).is_dir() else cached_folder(source)
            state = open_source(find_weights(encoder_folder(folder, name) or folder, name)).state
            own = encoder.get_submodule("model").state_dict()
            if own.keys() <= state.keys():
                return {f"model.{key}": state[key].to(self.number_format(name)) for key in own}
        return {}

    def _fill_quantised(self, network: nn.Module, state: State, kind: Format) -> None:
        """Read a network's weights and quantise them, block by block: the whole is never there in full."""
        kept_on = self.device if self.offload == "none" else torch.device("cpu")
        left = dict(state)
        parts = network.shard_units()  # type: ignore[operator]
        # Of the blocks alone: whoever remembers the layers keeps the weights of those that are replaced.
        prefixes = {module: name + "." for name, module in network.named_modules() if module in parts}
        for part in (*parts, network):
            names = [name for name in left if part is network or name.startswith(prefixes[part])]
            tensors = {name: left.pop(name).read() for name in names}
            network.load_state_dict(tensors, strict=False, assign=True)
            del tensors
            quantise(part, kind, self.device)
            part.to(kept_on)

    def described(self) -> str:
        """In one line, what was chosen."""
        words = [f"{self.device}, {str(self.dtype).removeprefix('torch.')}"]
        words += [f"{name} in {kind}" for name, kind in self.quantize.items()]
        if self.compile:
            words.append("compiled whole, as graphs" if self.compile == "graphs" else "compiled")
        waiting = "in their files" if self.device.type == "cpu" else "in the CPU's memory"
        if self.offload != "none":
            words.append(f"offload by {self.offload}: weights that are not in use wait {waiting}")
        return "; ".join(words)


def per_network(quantize: Quantize) -> dict[str, Format]:
    """The format of each network that has one; a format alone is that of Stage C and Stage B."""
    if isinstance(quantize, str):
        return dict.fromkeys(STAGES, quantize)
    return {name: kind for name, kind in (quantize or {}).items() if kind is not None}


def frozen(network: nn.Module) -> nn.Module:
    """For evaluation, without gradients."""
    return network.eval().requires_grad_(False)
