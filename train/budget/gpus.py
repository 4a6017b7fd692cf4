"""What GPUs have and can, by their makers' data sheets, and what the one that is here has."""

import time
from dataclasses import dataclass

import torch

from modules.schema import ConfigError, nearest


@dataclass(frozen=True)
class Gpu:
    """memory_gb: 10⁹ bytes, rounded down. Dense peaks in 10¹² operations/s: bf16 (or fp16) products that are
    added up in fp32, and fp32. bandwidth_gb_s: of its memory. price: of an hour, see `PRICED`; None: unknown.
    source: whence the rates are."""

    name: str
    memory_gb: float
    bf16: float
    fp32: float
    bandwidth_gb_s: float
    price: float | None = None
    source: str = "by its data sheet"

    def peak(self, precision: str) -> float:
        """Operations per second, of a run of this precision."""
        return 1e12 * (self.bf16 if precision == "bf16" else self.fp32)


PRICED = "US$, March 2026; prices change"
"""What one large rental cloud asked in its lowest tier (RunPod, as listed by deploybase.ai, 10 March 2026;
the H100's again in May 2026). Elsewhere the same GPU costs up to several times as much: for the H100,
gerra.com/research/gpu-market found an 18-fold range in May 2026."""

# NVIDIA's data sheets ("T4", "A10", "L4", "RTX A6000", "L40S", "A100", "H100", "H200", "DGX B200" divided by
# its eight GPUs) and architecture white papers (GA102, Ada, RTX Blackwell), without sparsity, for which
# sheets print twice as much; of several forms SXM. T4: fp16, for it has no bf16. Compared in November 2026
# with pages that quote them: hmc-tech.com (A100, L4), waredb.com (RTX 4090), acecloud.ai (A100, H100, H200,
# B200), itkb.uw.cz (H200). Some list 125 for the L4, at a clock and with cores that its sheet does not name.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("t4", 16, 65, 8.1, 320),
        Gpu("a10", 24, 125, 31.2, 600),
        Gpu("l4", 24, 121, 30.3, 300, 0.44),
        Gpu("a6000", 48, 154.8, 38.7, 768),
        Gpu("l40s", 48, 362, 91.6, 864, 0.79),
        Gpu("a100-40", 40, 312, 19.5, 1555),
        Gpu("a100", 80, 312, 19.5, 2039, 1.39),
        Gpu("h100", 80, 989, 67, 3350, 2.69),
        Gpu("h200", 141, 989, 67, 4800, 3.59),
        Gpu("b200", 180, 2250, 75, 8000, 5.98),
        Gpu("rtx3060", 12, 25.5, 12.7, 360),
        Gpu("rtx3090", 24, 71, 35.6, 936, 0.22),
        Gpu("rtx4090", 24, 165.2, 82.6, 1008, 0.34),
        Gpu("rtx5090", 32, 209.5, 104.8, 1792, 0.69),
    )
}
PRESENT = "present"


def gpu(name: str) -> Gpu:
    """The GPU of that name, or the `present` one. Raises ConfigError for others."""
    if name == PRESENT:
        return present()
    if name not in GPUS:
        raise ConfigError(f"--gpu: no GPU is known as {name!r}; {nearest(name, [*GPUS, PRESENT])}")
    return GPUS[name]


def present() -> Gpu:
    """The GPU that is here, or else the CPU: its memory, and the rate of its matrix products, measured."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        device, name, memory = torch.device("cuda"), properties.name, properties.total_memory
    else:
        device, name, memory = torch.device("cpu"), "no GPU here: the CPU", 0
    bf16, fp32 = (peak_rate(device, dtype) / 1e12 for dtype in (torch.bfloat16, torch.float32))
    return Gpu(name, memory / 1e9, bf16, fp32, 0.0, source="its matrix products measured now")


def peak_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations per second in products of square matrices, the best of several: as data sheets count."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.ones(side, side, device=device, dtype=dtype)
    a @ a  # what is chosen and compiled at the first time
    best, end = 0.0, time.monotonic() + seconds
    while not best or time.monotonic() < end:  # once at least, however busy the machine
        _wait(device)
        began = time.perf_counter()
        a @ a
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
