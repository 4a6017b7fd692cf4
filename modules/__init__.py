"""The networks, their conditions and their weight files."""

import warnings

from modules.discriminator import Discriminator
from modules.network import Network
from modules.previewer import Previewer
from modules.registry import NETWORKS, build
from modules.semantic_compressor import SemanticCompressor, normalise_images
from modules.stage_a import StageA, StageACode
from modules.stage_b import StageB
from modules.stage_c import StageC

__all__ = [
    "NETWORKS",
    "Discriminator",
    "Network",
    "Previewer",
    "SemanticCompressor",
    "StageA",
    "StageACode",
    "StageB",
    "StageC",
    "build",
    "normalise_images",
]

# In a notebook, what draws transformers' progress bars misses its widget; modules.encoders turns them off.
warnings.filterwarnings("ignore", message="IProgress not found")
