"""Control filters: what a ControlNet gets to see of a picture. One class per file, chosen by name.

To add one, write one class in a new file of this folder; its settings are the fields of a dataclass, and the
file's name is the filter's:

    # modules/adapters/filters/grey.py
    @dataclass
    class Grey(ControlFilter):
        '''The picture without its colours.'''
        gamma: float = bounded(1.0, least=0.1)

        def __call__(self, images: Tensor, generators: Generators) -> Tensor:
            return images.mean(1, keepdim=True) ** self.gamma

`data.control: {name: grey, gamma: 2.0}` then runs it in the data workers, and a ControlNet that learned with
it names it in its file.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from modules.schema import ConfigError, from_plain, join, nearest
from modules.semantic_compressor import SemanticCompressor

Generators = Sequence[torch.Generator]
# Of the squares and diamonds that a filter works on: its settings may come with a stranger's file.
MOST_PX = 4096
# What the released ControlNets were trained on, by bottleneck and input channels; their files do not say it.
RELEASED: dict[tuple[str, int], dict[str, Any]] = {
    ("effnet", 1): {"name": "canny", "as_published": True},
    ("effnet", 4): {"name": "inpainting"},
    ("large", 16): {"name": "super_resolution", "as_published": True},
    ("simple", 512): {"name": "identity"},
}


class ControlFilter(ABC):
    """Base of the filters. Subclasses are dataclasses whose fields are the settings.

    channels: of the control picture. in_workers: whether data workers can run it, where results are stored in
    eight bits; other filters run in the recipe. compressor: set for those that look through one.
    """

    name: ClassVar[str]
    channels: int = 1
    in_workers: ClassVar[bool] = True
    compressor: SemanticCompressor | None = None

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    @abstractmethod
    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        """Pictures [B, 3, H, W] in [0, 1] -> control [B, channels, h, w], in [0, 1] if in_workers.

        generators: one per picture, on the CPU, for all that is random; so a picture's control does not
        depend on the others of its batch.
        """

    def preview(self, images: Tensor) -> Tensor | None:
        """The pictures with what the control says of them; None: the control's own channels show it."""
        return None


def filter_names() -> list[str]:
    """The names of all filters."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_filter(
    spec: Mapping[str, Any], compressor: SemanticCompressor | None = None, where: str = "control"
) -> ControlFilter:
    """Make the filter that `spec` names, {"name": ..., settings ...}.

    compressor: for filters that need one; it may also be set later. where: the dotted key of `spec`, for
    messages. ConfigError names the nearest filter or setting, FileNotFoundError a file that is not there.
    """
    settings = dict(spec)
    name = settings.pop("name", None)
    if name not in filter_names():
        raise ConfigError(f"{join(where, 'name')}: found {name!r}; {nearest(str(name), filter_names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    kind = next(cls for cls in vars(module).values() if is_filter(cls, module.__name__))
    made = from_plain(kind, settings, where)
    made.compressor = compressor
    return made


def is_filter(value: Any, module: str) -> bool:
    """Whether a value is a filter class of that module's own."""
    return isinstance(value, type) and issubclass(value, ControlFilter) and value.__module__ == module


def released_filter(config: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of the filter that a released ControlNet learned with; ValueError for other configs."""
    key = (config["bottleneck_mode"], config["c_in"])
    if key not in RELEASED:
        known = ", ".join(f"{mode} with {channels}" for mode, channels in RELEASED)
        raise ValueError(f"no released ControlNet is {key[0]} with {key[1]} channels; expected {known}")
    return dict(RELEASED[key])
