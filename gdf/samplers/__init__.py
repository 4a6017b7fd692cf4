"""Samplers: one step from a noisier log-SNR to a cleaner one. One class per file, which is its name.

To add one, write a file into this folder with one subclass of BaseSampler: `gdf/samplers/mine.py` is then
chosen by `stage_c.sampler=mine`, and `SAMPLERS["mine"]` is the class. docs/extend/sampler.md shows one.
"""

import importlib
import inspect
import pkgutil

from gdf.samplers.base import BaseSampler, Estimate, Step, StochasticSampler
from gdf.samplers.ddim import DDIMSampler
from gdf.samplers.ddpm import DDPMSampler
from gdf.samplers.dpmpp_2m import DPMSolverPP2MSampler
from gdf.samplers.euler import EulerSampler
from gdf.samplers.heun import HeunSampler
from gdf.samplers.lcm import LCMSampler

__all__ = [
    "SAMPLERS",
    "BaseSampler",
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverPP2MSampler",
    "Estimate",
    "EulerSampler",
    "HeunSampler",
    "LCMSampler",
    "Step",
    "StochasticSampler",
]


def _samplers() -> dict[str, type[BaseSampler]]:
    """File name -> the sampler in it; files without one (what samplers are made of) are none."""
    found: dict[str, type[BaseSampler]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, BaseSampler) and not inspect.isabstract(value):
                found[file.name] = value
    return found


SAMPLERS: dict[str, type[BaseSampler]] = _samplers()
