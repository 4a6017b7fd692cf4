"""Which networks draw, where and how: settings that the command line and the web page share."""

from dataclasses import asdict, dataclass, field
from typing import Literal

from inference.pipeline import Cascade
from inference.reading import Compile, Offload, Quantize
from inference.settings import Weights
from modules.schema import bounded
from modules.tiles import LEAST_TILE_PX, TILE_PX


@dataclass(frozen=True)
class CascadeSettings:
    """What Cascade.load is told; configs/inference.yaml explains each entry."""

    run: str | None = None
    weights: Weights = field(default_factory=Weights)
    ema: bool = True
    device: str = "auto"
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    offload: Offload = "none"
    quantize: Quantize = None
    compile: Compile | None = None
    tile_px: int | None = bounded(TILE_PX, LEAST_TILE_PX)

    def cascade(self) -> Cascade:
        """The networks that these settings name. Raises what Cascade.load raises."""
        return Cascade.load(
            self.run,
            device=self.device,
            dtype=self.dtype,
            ema=self.ema,
            offload=self.offload,
            quantize=self.quantize,
            compile=self.compile or False,
            tile_px=self.tile_px,
            **asdict(self.weights),
        )
