"""An optimizer's state by the names of its parameters, as named tensors and plain values, and back."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from train.checkpoints.folders import CheckpointError
from train.checkpoints.plain import put_together, take_apart, tensor_names
from train.checkpoints.shards import Shards
from train.player import Player

PACKED = {"state1", "state2"}  # what bitsandbytes calls the two moments


def save_optimizer(player: Player, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The plain part of the state; the tensors go to `tensors`."""
    names = _names(player)
    state = cast(Mapping[nn.Parameter, dict], player.optimizer.state)
    by_name = {names[parameter]: entries for parameter, entries in state.items()}
    return take_apart(by_name, f"optimizer/{player.name}", tensors)


class OptimizerLoad:
    """The state of one player's optimizer, to be read: `targets` first, then `finish`."""

    def __init__(self, player: Player, plain: Mapping[str, Any], shards: Shards) -> None:
        """Raises CheckpointError when the state belongs to other parameters."""
        self.player, self.plain = player, plain
        self.parameters = {name: parameter for parameter, name in _names(player).items()}
        if not isinstance(plain, Mapping) or not all(isinstance(each, Mapping) for each in plain.values()):
            raise CheckpointError(f"{shards.folder}: the optimizer of '{player.name}' has no state")
        if unknown := sorted(plain.keys() - self.parameters.keys()):
            raise CheckpointError(
                f"{shards.folder}: the optimizer of '{player.name}' learnt {len(unknown)} other parameters,"
                f" such as {unknown[0]}"
            )
        self.targets: dict[str, Tensor] = {}
        for name, entries in plain.items():
            for key in tensor_names(entries):
                saved = shards.facts(key)
                self.targets[key] = _empty(saved.size, saved.properties.dtype, self.parameters[name])
            self._check(name, entries, f"{shards.folder}: the optimizer of '{player.name}': {name}")

    def _check(self, name: str, entries: Mapping[str, Any], where: str) -> None:
        """Raise CheckpointError for a state that the optimizer would only stumble over at its next step."""
        found = {
            key: list(self.targets[each].shape) for key in entries for each in tensor_names(entries[key])
        }
        shape = list(self.parameters[name].shape)
        expected = {"step": [], "exp_avg": shape, "exp_avg_sq": shape}
        is_plain = isinstance(self.player.optimizer, torch.optim.AdamW)
        if is_plain and found != expected:
            raise CheckpointError(f"{where}: expected {expected}, found {found}")
        if not is_plain and PACKED - found.keys():
            raise CheckpointError(f"{where}: expected {', '.join(sorted(PACKED))}, found {', '.join(found)}")

    def finish(self) -> None:
        """Give the optimizer its state, when the targets have been read."""
        state = put_together(self.plain, self.targets)
        ordered = [p for group in self.player.optimizer.param_groups for p in group["params"]]
        names = _names(self.player)
        entries = {i: state[names[p]] for i, p in enumerate(ordered) if names[p] in state}
        groups = self.player.optimizer.state_dict()["param_groups"]
        self.player.optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _names(player: Player) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in player.module.named_parameters()}


def _empty(shape: torch.Size, dtype: torch.dtype, parameter: nn.Parameter) -> Tensor:
    """Room for a parameter's value, sharded as the parameter is if it has its shape."""
    if shape == parameter.shape:
        return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
    return torch.empty(shape, dtype=dtype)
