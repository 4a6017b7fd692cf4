"""Bytes that a run takes on one GPU, by kind, from what was counted on paper and the settings."""

from dataclasses import dataclass, field
from functools import cache

from torch import Tensor, nn

from train.budget.paper import Paper, Recompute, Working

GB = 1e9
CONTEXT_BYTES = int(0.6 * GB)
"""Assumed: what CUDA, cuBLAS and cuDNN take for themselves on a GPU. It differs with GPU and driver."""
EIGHT_BIT_FROM, EIGHT_BIT_BLOCK = 4096, 256  # numbers of a tensor that bitsandbytes packs, of one scale
PAGED_FROM = 100_000  # numbers of a tensor whose states bitsandbytes lets go to the CPU
FROZEN_BYTES = {"nf4": (0.5 + 4 / 64, 0), "int8": (1.0, 4)}  # of a linear layer: per weight, per row
ROUNDING_BYTES = 16  # per weight of the largest one: weight, gradient, chance and sum; `train.optim.rounding`


@dataclass(frozen=True)
class Measures:
    """What can be chosen to save memory; the values here save nothing.

    frozen: number format of the frozen network that something else learns in; None: as the settings say.
    offloaded: frozen helpers lie in the CPU's memory but for the one that runs.
    """

    batch_size: int
    num_accum: int
    recompute: Recompute = False
    optimizer: str = "adamw"
    weights: str = "fp32"
    fused: bool = False
    average: bool = True
    frozen: str | None = None
    offloaded: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes, by kind. working: activations, temporary results and casts, most at once. sheets: the same
    while sample sheets are drawn. peak: of all kinds at the worst moment (gradients come while activations
    go), with CUDA's own."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    frozen: dict[str, int]
    working: int
    sheets: int
    peak: int
    context: int = CONTEXT_BYTES
    operations: dict[str, int] = field(default_factory=dict)  # of one micro-batch


class Needs:
    """Memory of one run under any measures. shards: processes that share out what learns (fsdp, hsdp)."""

    def __init__(self, paper: Paper, shards: int = 1) -> None:
        self.paper, self.shards = paper, shards
        self.working, self.moments = cache(self._working), cache(self._moments)
        self.drawing, self._few_bits = cache(paper.sheet), cache(self._with_few_bits)
        self.products = paper.products()
        self._learning = {id(parameter) for parameter in paper.learning}
        self._numel = sum(parameter.numel() for parameter in paper.learning)
        self._averaged = sum(parameter.numel() for parameter in paper.averaged())
        self._weights = {
            lowered: sum(p.numel() * (2 if p in chosen else p.element_size()) for p in paper.learning)
            for lowered, chosen in ((False, set()), (True, self.products))
        }
        self._largest = max((p.numel() for p in self.products), default=0)
        self._held = {name: entry for name, entry in paper.plain["model"].items() if isinstance(entry, dict)}
        networks = paper.frozen()
        self._layers = {name: self._frozen_layers(network) for name, network in networks.items()}
        self._sizes = {name: self._size(name, network) for name, network in networks.items()}
        busy = {paper.base_name, "teacher", "perceptual"}
        self.helpers = [name for name in networks if name not in busy]
        # Shards are gathered in bf16 where they are multiplied: nothing is cast, and nothing is left to save.
        self._gathered = max(map(unit_numel, paper.units), default=0) * (2 + 2 + 4) if shards > 1 else 0

    def memory(self, chosen: Measures) -> Memory:
        """Under these measures."""
        lowered = chosen.weights == "bf16_stochastic"
        weights, optimizer = self._weights[lowered], self.moments(chosen.optimizer)
        average = 4 * self._averaged if chosen.average else 0
        weights, optimizer, average = (each // self.shards for each in (weights, optimizer, average))
        micro = self.working(chosen.batch_size, chosen.recompute, lowered or self.shards > 1)
        gradients = micro.gradients
        if self.shards > 1:  # shards of gradients are fp32
            gradients = 4 * self._numel // self.shards
        frozen, unpacked = self.frozen(chosen.frozen)
        rounding = ROUNDING_BYTES * self._largest if lowered else 0
        working = micro.alone + unpacked + self._gathered
        if chosen.fused:
            moving = working + rounding
        elif chosen.num_accum > 1:
            moving = gradients + max(working, rounding)
        else:
            together = micro.together + unpacked + self._gathered - (micro.gradients - gradients)
            moving = max(together, working, gradients + rounding)
        sheets = self._sheets(lowered, chosen.average, unpacked)
        away = self.helpers if chosen.offloaded else self._away()
        if away:
            visiting = max(frozen.pop(name) for name in away)
            moving, sheets = max(moving, visiting + micro.helping), sheets and sheets + visiting
        on_gpu = sum(frozen.values())
        peak = weights + optimizer + average + on_gpu + max(moving, sheets) + CONTEXT_BYTES
        stays = 0 if chosen.fused else gradients
        counted = dict(micro.operations)
        sizes = (weights, stays, optimizer, average, frozen, working, sheets)
        return Memory(*sizes, int(peak), operations=counted)

    def _sheets(self, lowered: bool, average: bool, unpacked: int) -> int:
        """While sample sheets are drawn: what sampling takes, and for the average's turn the rows before it
        and the weights that it has no place for."""
        if not self.paper.config.run.sample_every:
            return 0
        drawing = self.drawing(lowered or self.shards > 1)
        kept = self._weights[False] - self._weights[True] if lowered else 0
        return drawing.most + unpacked + self._gathered + (drawing.rows + kept if average else 0)

    def _moments(self, optimizer: str) -> int:
        return sum(moments_bytes(parameter.numel(), optimizer) for parameter in self.paper.learning)

    def frozen(self, kind: str | None) -> tuple[dict[str, int], int]:
        """Bytes of frozen networks by name, and of the largest weight unpacked, twice.

        kind: number format of the network that something learns in, if another than the settings' is tried.
        """
        sizes, unpacked = self._few_bits(kind)
        return dict(sizes), unpacked

    def _with_few_bits(self, kind: str | None) -> tuple[dict[str, int], int]:
        sizes, base = dict(self._sizes), "teacher" if "teacher" in self._sizes else self.paper.base_name
        kind = kind or self._kind(base)
        if kind is None:
            return sizes, 0
        layers = self._layers[base]
        if self._kind(base) is None:
            sizes[base] -= saved(layers, kind)
        return sizes, 2 * 2 * max((weight.numel() for weight in layers), default=0)

    def _kind(self, name: str) -> str | None:
        """The few bits that the settings say already."""
        entry = self._held.get(self.paper.base_name if name == "teacher" else name, {})
        kind = entry.get("frozen_weights")
        return kind if kind in FROZEN_BYTES else None

    def _away(self) -> list[str]:
        """What the settings send to the CPU's memory."""
        return [name for name in self.helpers if self._held.get(name, {}).get("offload")]

    def _frozen_layers(self, network: nn.Module) -> list[Tensor]:
        return [weight for weight in linear_weights(network) if id(weight) not in self._learning]

    def _size(self, name: str, network: nn.Module) -> int:
        tensors = {id(t): t for t in (*network.parameters(), *network.buffers())}
        whole = sum(nbytes(t) for key, t in tensors.items() if key not in self._learning)
        kind = self._kind(name)
        return whole if kind is None else whole - saved(self._layers[name], kind)

    def _working(self, batch_size: int, recompute: Recompute, lowered: bool) -> Working:
        """From batches of one and two pictures, for all else grows evenly."""
        if batch_size <= 2:
            return self.paper.micro_step(batch_size, recompute, lowered)
        one, two = (self.working(size, recompute, lowered) for size in (1, 2))

        def grown(first: int, second: int) -> int:
            return first + (batch_size - 1) * (second - first)

        sizes = {
            name: grown(getattr(one, name), getattr(two, name)) for name in ("alone", "together", "helping")
        }
        found = {phase: grown(one.operations[phase], two.operations[phase]) for phase in one.operations}
        return Working(**sizes, gradients=one.gradients, operations=found)


def moments_bytes(numel: int, optimizer: str) -> int:
    """Of AdamW's two moments of a tensor, on the GPU."""
    if optimizer == "adamw" or numel < EIGHT_BIT_FROM:
        return 8 * numel
    if optimizer.startswith("paged") and numel >= PAGED_FROM:
        return 0
    return 2 * (numel + 4 * -(-numel // EIGHT_BIT_BLOCK))


def linear_weights(network: nn.Module) -> list[Tensor]:
    """Of linear layers and packed projections, as far as these exist."""
    found: dict[int, Tensor] = {}
    for module in network.modules():
        packed = getattr(module, "in_proj_weight", None)
        if packed is not None:
            found[id(module)] = packed
        elif isinstance(module, nn.Linear):
            found[id(module)] = module.weight
    return list(found.values())


def saved(layers: list[Tensor], kind: str) -> int:
    """Bytes that these weights take less in few bits."""
    per_weight, per_row = FROZEN_BYTES[kind]
    return sum(nbytes(w) - int(w.numel() * per_weight) - len(w) * per_row for w in layers)


def unit_numel(unit: nn.Module) -> int:
    """Parameters of a block."""
    return sum(parameter.numel() for parameter in unit.parameters())


def nbytes(tensor: Tensor) -> int:
    """Of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()
