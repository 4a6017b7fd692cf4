"""LoRA: changes of low rank beside chosen layers of a network that stays as it is."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules.adapters.layers import adaptable_layers, choose, find, weight_shape
from modules.adapters.lora_layer import LoRALayer
from modules.adapters.lora_shapes import check_size, entries, factor_shapes, fitted, keywords, magnitude_shape
from modules.adapters.lora_state import PREFIXES, LoRAState
from modules.adapters.low_rank import low_rank_difference
from modules.adapters.official_names import name_layers
from modules.adapters.quantised import QuantisedLinear
from modules.network import Network, keeps_config

DORA = {False: None, True: 0, "output": 0, "input": 1}  # the axis that has magnitudes


class LoRA(Network):
    """LoRA layers by the names of the layers that they change, and the trained tokens that belong to them.

    layers: for each name the keywords of its `LoRALayer`. part: "unet" or "text_encoder", where the state's
    names begin. The state's names are those of ComfyUI's files: diffusion_model.<layer>.lora_down.weight, …
    An attached LoRA's layers are children of the base's layers too, so that what shards, compiles or trains
    the base finds them there. bundle_emb: the `TrainedTokens` that are saved with it, or None.
    """

    @keeps_config
    def __init__(self, layers: Mapping[str, Mapping[str, Any]], part: str = "unet") -> None:
        super().__init__()
        self.layers = {name: LoRALayer(**settings) for name, settings in layers.items()}
        for name, layer in self.layers.items():
            _place(self, f"{PREFIXES[part]}.{name}", layer)
        self.bundle_emb: Network | None = None
        self._strength = 1.0
        self._attached: list[tuple[nn.Module, str, RemovableHandle]] = []

    @classmethod
    def create(
        cls,
        network: nn.Module,
        layers: Mapping[str, int],
        *,
        alpha: float | None = None,
        dropout: float = 0.0,
        dora: bool | str = False,
        part: str = "unet",
    ) -> "LoRA":
        """A fresh LoRA for a network, on the network's device; it changes nothing yet.

        layers: rank by glob pattern of layer names (as in `named_modules`); the last match counts, 0 is not.
        alpha: the change is scaled by alpha / rank; None: by 1. dropout: of the layer's input.
        dora: magnitudes for every output (True or "output", as in the paper) or every "input" of a layer.
        ValueError for patterns that match nothing.
        """
        if dora not in DORA:
            raise ValueError(f"LoRA dora: expected true, false, output or input, found {dora!r}")
        found = adaptable_layers(network)
        settings: dict[str, dict[str, Any]] = {}
        for name, rank in choose(found, layers).items():
            down, up = factor_shapes(weight_shape(found[name]), rank)
            magnitude = magnitude_shape(weight_shape(found[name]), DORA[dora])
            settings[name] = {"down": down, "up": up, "alpha": float(rank if alpha is None else alpha)}
            settings[name] |= {"dora": magnitude, "dropout": dropout}
        with next(network.parameters()).device:
            lora = cls(settings, part)
        for name, layer in lora.layers.items():
            if layer.dora_scale is not None:
                layer.take_magnitude(found[name].weight)  # type: ignore[arg-type]
        return lora

    @classmethod
    def from_state(cls, state: LoRAState, network: nn.Module, part: str = "unet") -> "LoRA":
        """The LoRA that a file holds, for this network, on its device; its tokens are `TrainedTokens`' part.

        ValueError for layers that the network does not have or whose sizes differ, or when there are none.
        """
        found, state = adaptable_layers(network), name_layers(state, network)
        factors = {
            name: fitted(name, item, weight_shape(find(found, name)))
            for name, item in state.parts[part].items()
        }
        if not factors:
            raise ValueError(f"LoRA: it changes no layer of the {part.replace('_', ' ')}")
        norms_of = state.facts.get("norms_of", "patched")
        device = next(network.parameters()).device
        with torch.device("meta"):
            lora = cls({name: keywords(item, norms_of) for name, item in factors.items()}, part)
        lora.to_empty(device=device)
        for name, layer in lora.layers.items():
            layer.load_state_dict(entries(factors[name]))
        return lora

    @classmethod
    def extract(
        cls, base: nn.Module, tuned: nn.Module, rank: int | Mapping[str, int], energy: float = 1.0
    ) -> "LoRA":
        """The difference of two networks of one structure as a LoRA: the nearest one of its ranks.

        rank: the most, for all layers or by glob pattern. energy: keep the fewest singular values of each
        layer that hold this share of the sum of their squares. Layers that do not differ are left out; what
        is not a layer's weight (biases, norms) is not a LoRA's to change. ValueError if no layer differs.
        """
        found, others = adaptable_layers(base), adaptable_layers(tuned)
        layers = {}
        for name, most in choose(found, {"*": rank} if isinstance(rank, int) else rank).items():
            factors = low_rank_difference(found[name], find(others, name), most, energy)
            if factors is not None:
                layers[name] = factors
        if not layers:
            raise ValueError("LoRA: the two networks do not differ in any of the chosen layers")
        state = LoRAState()
        state.parts["unet"].update(layers)
        return cls.from_state(state, base)

    def to_state(self, facts: Mapping[str, Any]) -> LoRAState:
        """What `write_lora` writes, with the trained tokens; the tensors are shared. facts: plain data."""
        state = LoRAState(facts=dict(facts))
        for name, layer in self.layers.items():
            state.parts[self.config["part"]][name] = layer.factors()
            if layer.dora_scale is not None:
                state.facts["norms_of"] = layer.norms_of
        if self.bundle_emb is not None:
            for key, vectors in self.bundle_emb.state_dict().items():
                state.tokens[key.removesuffix(".clip_g")] = vectors
        return state

    def init_weights(self) -> None:
        for layer in self.layers.values():
            layer.reset_parameters()

    def shard_units(self) -> list[nn.Module]:
        """None of its own: they are inside of the base's."""
        return []

    @property
    def weight(self) -> float:
        """How much of the change counts: 1 all of it, 0 leaves the network's outputs bit-identical."""
        return self._strength

    @weight.setter
    def weight(self, weight: float) -> None:
        self._strength = float(weight)
        for layer in self.layers.values():
            layer.strength = self._strength

    def attach(self, network: nn.Module, weight: float = 1.0) -> None:
        """Change the network's outputs from now on; several LoRAs add up.

        ValueError if it is attached already, or made for other layers or sizes.
        """
        if self._attached:
            raise ValueError("LoRA: already attached to a network; detach it first")
        self.weight = weight
        for name, target in self._targets(network).items():
            child = next(name for name in map("lora_{}".format, count()) if not hasattr(target, name))
            target.add_module(child, self.layers[name])
            self._attached.append((target, child, self.layers[name].attach(target)))

    def detach(self) -> None:
        """Leave the network as it was before."""
        for target, child, handle in self._attached:
            handle.remove()
            delattr(target, child)
        self._attached.clear()

    @torch.no_grad()
    def merge(self, network: nn.Module, weight: float = 1.0) -> None:
        """Add the change to the network's weights for good (rounded to their number format).

        ValueError for a layer whose weight cannot be written (quantised).
        """
        targets = self._targets(network)
        for name, target in targets.items():
            if isinstance(target, QuantisedLinear):
                raise ValueError(f"LoRA: {name} is quantised; merge into the network as it was before")
        for name, target in targets.items():
            base: Tensor = target.weight  # type: ignore[assignment]
            base.copy_(base.float() + weight * self.layers[name].change(base))

    def _targets(self, network: nn.Module) -> dict[str, nn.Module]:
        found = adaptable_layers(network)
        targets = {name: find(found, name) for name in self.layers}
        for name, target in targets.items():
            check_size(name, self.layers[name].factors(), weight_shape(target))
        return targets


def _place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register a module under a dotted name, with empty modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)
