"""The machine that figures come from: what it is, and how fast it multiplies matrices and moves memory."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PACKAGES = (
    *("torch", "torchvision", "diffusers", "transformers", "peft", "webdataset", "pillow", "bitsandbytes"),
    *("numpy", "accelerate", "opencv-python-headless", "simplejpeg"),
)
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")
# Stage C's channel mixing of 1 B at two pictures of 24 x 24 latents; on a GPU large enough to fill it.
CPU_PRODUCT, GPU_PRODUCT, SMALL_PRODUCT = (1152, 1536, 6144), (8192, 8192, 8192), (64, 64, 64)
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**32}
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
ROOT = Path(__file__).parents[1]


def matrix_turn(device: torch.device, dtype: torch.dtype, small: bool) -> tuple[Callable[[], None], float]:
    """Something to be timed that multiplies matrices, and the operations that it takes."""
    sizes = SMALL_PRODUCT if small else CPU_PRODUCT if device.type == "cpu" else GPU_PRODUCT
    rows, inner, columns = sizes
    x = torch.randn(rows, inner, device=device, dtype=dtype)
    weight = torch.randn(columns, inner, device=device, dtype=dtype)
    times = 1 if small else 10

    def multiply() -> None:
        with torch.no_grad():
            for _ in range(times):
                torch.nn.functional.linear(x, weight)

    return multiply, times * 2.0 * rows * inner * columns


def matrix_rate(device: torch.device, dtype: torch.dtype, small: bool = False) -> float:
    """Operations per second of a matrix product."""
    multiply, operations = matrix_turn(device, dtype, small)
    return operations / median_seconds(multiply, device)


def memory_rate(device: torch.device, small: bool = False) -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    count = 2**16 if small else COPIED_BYTES[device.type]
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * count / median_seconds(lambda: target.copy_(source), device)


def median_seconds(action: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def rates(device: torch.device, small: bool = False) -> dict[str, float]:
    """What floors are counted with."""
    found = {f"{name}_tflops": matrix_rate(device, dtype, small) / 1e12 for name, dtype in PRECISIONS.items()}
    return found | {"memory_gb_s": memory_rate(device, small) / 1e9}


def describe(device: torch.device) -> dict[str, Any]:
    """The machine in words and numbers."""
    info = {
        "processor": processor(),
        "flags": [flag for flag in FLAGS if flag in cpu_flags()],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        info |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "driver": driver(),
        }
    return info


def versions() -> dict[str, str]:
    """Of Python and the packages that figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that is measured, with a plus where the working tree differs from it; "" outside of git."""
    try:
        name = git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def cpu_info(key: str) -> str:
    """The first value of that key in /proc/cpuinfo; "" where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), ""
    )


def processor() -> str:
    """Its name; on x86 with family and model, for a virtual machine may tell no more than the maker's."""
    name = cpu_info("model name") or platform.processor() or platform.machine()
    family = cpu_info("cpu family")
    return f"{name} (family {family}, model {cpu_info('model')})" if family else name


def cpu_flags() -> set[str]:
    return set((cpu_info("flags") or cpu_info("Features")).split())


def memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def load() -> float:
    """How many processes want to compute, the mean of a minute; 0 where nobody counts (Windows)."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def most_held_bytes() -> int:
    """Most memory that this process ever held; 0 where nobody counts (Windows)."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage(2) there
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def driver() -> str:
    """The version of the GPU's driver; "" when nobody can tell."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.split("\n")[0].strip()
