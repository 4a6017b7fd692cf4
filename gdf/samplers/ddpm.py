"""DDPM: ancestral sampling."""

from dataclasses import dataclass

from gdf.samplers.ddim import DDIMSampler


@dataclass
class DDPMSampler(DDIMSampler):
    """Ancestral sampling (Ho et al. 2020): DDIM with eta = 1."""

    eta: float = 1.0
