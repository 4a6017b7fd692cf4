"""Which measures to take so that a run fits: of all that may be taken, those that cost least."""

import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import log2
from typing import Any

from torch import nn

from train.budget.memory import Measures, Memory, Needs
from train.config import Config

# What a measure costs, in shares of a step's time or, where it changes what is learnt, what it is worth
# avoiding. Assumed, not measured: they only decide which of the sets that fit is taken.
COSTS: dict[str, dict[Any, float]] = {
    "recompute": {False: 0.0, "selective": 0.15, True: 0.3},
    "optimizer": {"adamw": 0.0, "adamw8bit": 0.1, "paged_adamw8bit": 0.7},
    "weights": {"fp32": 0.0, "bf16_stochastic": 0.15},
    "fused": {False: 0.0, True: 0.35},  # gradients are no longer clipped
    "average": {True: 0.0, False: 0.5},
    "frozen": {None: 0.0, "int8": 0.2, "nf4": 0.4},
    "offloaded": {False: 0.0, True: 0.12},
}
BESIDE_FROZEN = ("lora", "controlnet", "ip_adapter", "lcm")  # what learns there leaves a network as it is
HALVING, HALVING_BATCHNORM = 0.04, 0.5  # of the micro-batch; the statistics of BatchNorm become noisier
KEYS = {
    "recompute": "parallel.activation_checkpointing",
    "optimizer": "optim.name",
    "weights": "optim.weights",
    "fused": "optim.fused_backward",
    "average": "run.ema.enabled",
}
WORDS: dict[Any, str] = {
    True: "activation checkpointing",
    "selective": "selective activation checkpointing",
    "adamw8bit": "8-bit AdamW",
    "paged_adamw8bit": "8-bit AdamW paged to the CPU's memory",
    "bf16_stochastic": "bf16 weights with stochastic rounding",
    "fused": "updates within the backward pass, gradients not clipped",
    "average": "no moving average",
    "offloaded": "frozen helpers in the CPU's memory",
}


@dataclass(frozen=True)
class Choice:
    """What was chosen: the measures, the settings that they are, the memory that is expected."""

    measures: Measures
    changes: dict[str, Any]  # by dotted key
    memory: Memory


class Chooser:
    """Finds the cheapest measures for a run.

    typed: dotted keys that keep their values. processes: of the run.
    """

    def __init__(self, needs: Needs, typed: Collection[str], processes: int = 1) -> None:
        self.needs, self.typed, self.processes = needs, typed, processes
        self.config: Config = needs.paper.config
        self.own = self._own()

    def cheapest(self, limit_bytes: float) -> Choice | None:
        """The cheapest set that fits; None if none does."""
        for measures in self._by_cost:
            memory = self.needs.memory(measures)
            if memory.peak <= limit_bytes:
                return Choice(measures, self.changes(measures), memory)
        return None

    def least(self) -> Choice:
        """The set that needs the least memory."""
        found = min(self._by_cost, key=lambda measures: self.needs.memory(measures).peak)
        return Choice(found, self.changes(found), self.needs.memory(found))

    def changes(self, chosen: Measures) -> dict[str, Any]:
        """The settings that differ from the run's own."""
        found: dict[str, Any] = {}
        for name, key in KEYS.items():
            if getattr(chosen, name) != getattr(self.own, name):
                found[key] = getattr(chosen, name)
        if chosen.batch_size != self.own.batch_size:
            found |= {"data.batch_size": chosen.batch_size, "run.num_accum": chosen.num_accum}
        if chosen.fused and not self.own.fused:
            found["run.clip_norm"] = None
        if chosen.frozen is not None:
            found[f"model.{self._base}.frozen_weights"] = chosen.frozen
        if chosen.offloaded:
            found |= {key: True for key in self._offloads()}
        plain_only = chosen.optimizer != "adamw" or chosen.weights != "fp32"
        if plain_only and self.config.parallel.mode in ("fsdp", "hsdp"):
            found["parallel.mode"] = "ddp"  # of one process all modes are the same
        return found

    def words(self, chosen: Measures) -> str:
        """What is done, in words."""
        own = self.own
        found = [WORDS[chosen.recompute]] if chosen.recompute else []
        found += ["no activation checkpointing"] if own.recompute and not chosen.recompute else []
        if chosen.batch_size != own.batch_size:
            found.append(f"micro-batches of {chosen.batch_size} (num_accum {chosen.num_accum})")
        found += [WORDS[name] for name in (chosen.optimizer, chosen.weights) if name in WORDS]
        found += [f"frozen network in {chosen.frozen}"] if chosen.frozen else []
        found += [WORDS[name] for name in ("fused", "offloaded") if getattr(chosen, name)]
        found += [WORDS["average"]] if own.average and not chosen.average else []
        return ", ".join(found) or "nothing is needed"

    def _own(self) -> Measures:
        """The run's settings as measures."""
        config = self.config
        return Measures(
            batch_size=config.data.batch_size,
            num_accum=config.run.num_accum,
            recompute=config.parallel.activation_checkpointing,
            optimizer=config.optim.name,
            weights=config.optim.weights,
            fused=config.optim.fused_backward,
            average=config.run.ema.enabled,
        )

    @cached_property
    def _by_cost(self) -> list[Measures]:
        """All sets that may be taken, the cheapest first; of equal ones always the same first."""
        return sorted(self._allowed(), key=self._cost)

    def _cost(self, measures: Measures) -> float:
        costs = sum(COSTS[name][getattr(measures, name)] for name in COSTS)
        smaller = max(1.0, self.own.batch_size / measures.batch_size)
        per_halving = HALVING_BATCHNORM if self._has_batchnorm else HALVING
        return round(costs + per_halving * log2(smaller), 6)  # equal sums are to be equal

    def _allowed(self) -> Iterator[Measures]:
        names = list(COSTS)
        values = [self._values(name) for name in names]
        for (batch_size, num_accum), combination in product(self._batches(), list(product(*values))):
            measures = Measures(batch_size, num_accum, **dict(zip(names, combination, strict=True)))
            if measures.fused and num_accum != 1:
                continue
            if batch_size > self.own.batch_size and not measures.fused:
                continue
            yield measures

    def _values(self, name: str) -> list[Any]:
        own = getattr(self.own, name)
        if KEYS.get(name) in self.typed:
            return [own]
        if name == "recompute":
            return sorted({False, own, True}, key=COSTS[name].__getitem__)
        if name == "frozen":
            return [None, *self._formats()]
        if name == "offloaded":
            return [False, True] if self._may_offload else [False]
        values = list(COSTS[name])
        values = values[values.index(own) :]  # never less than the experiment does
        return [value for value in values if value == own or self._is_possible(name)]

    def _is_possible(self, name: str) -> bool:
        config = self.config
        sharded = config.parallel.mode in ("fsdp", "hsdp")
        stays = sharded and (self.processes > 1 or "parallel.mode" in self.typed)
        if stays and name in ("optimizer", "weights"):
            return False
        if name == "optimizer":
            return importlib.util.find_spec("bitsandbytes") is not None
        if name == "weights":
            return config.run.precision == "bf16" and bool(self.needs.paper.products())
        if name == "fused":
            free = "run.clip_norm" not in self.typed or config.run.clip_norm is None
            return free and self.processes == 1
        return True

    def _formats(self) -> list[str]:
        """Number formats that the frozen network can have in place of its own."""
        entry, recipe = self.config.model.get(self._base, {}), self.config.recipe["name"]
        if recipe not in BESIDE_FROZEN or f"model.{self._base}.frozen_weights" in self.typed:
            return []
        if entry.get("frozen_weights") is not None or not self._may_quantise:
            return []
        return ["int8", "nf4"] if importlib.util.find_spec("bitsandbytes") else ["int8"]

    @property
    def _base(self) -> str:
        """The entry of the settings of the network that something else learns in."""
        return self.needs.paper.base_name

    def _offloads(self) -> list[str]:
        """The keys that send frozen helpers to the CPU's memory."""
        return [f"model.{name}.offload" for name in self.needs.helpers]

    def _batches(self) -> list[tuple[int, int]]:
        """Micro-batches and how many of them make a step, whose product stays."""
        own = self.own.batch_size, self.own.num_accum
        if {"data.batch_size", "run.num_accum"} & set(self.typed):
            return [own]
        whole = own[0] * own[1]
        return [
            (n, whole // n) for n in range(whole, 0, -1) if whole % n == 0 and (n <= own[0] or n == whole)
        ]

    @property
    def _may_quantise(self) -> bool:
        """Shards have to be of one number format."""
        return self.config.parallel.mode not in ("fsdp", "hsdp") or self.processes == 1

    @property
    def _may_offload(self) -> bool:
        keys = self._offloads()
        learns_words = bool(self.config.recipe.get("tokens"))  # gradients pass through the text encoder
        is_free = not (set(keys) & set(self.typed) or self.config.parallel.shard_frozen or learns_words)
        return bool(keys) and is_free

    @cached_property
    def _has_batchnorm(self) -> bool:
        modules = self.needs.paper.modules.values()
        return any(
            isinstance(part, nn.BatchNorm2d) and any(p.requires_grad for p in part.parameters())
            for module in modules
            for part in module.modules()
        )
