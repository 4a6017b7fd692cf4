"""The semantic compressor with a backbone that torchvision trained on ImageNet, as the release began."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modules.semantic_compressor import SemanticCompressor
from modules.weights.pickled import read_pickled

ENDING = ".pth"  # torchvision's own; every other weight file is safetensors
PREFIX = "features."


def compressor_from_imagenet(path: Path, changes: Mapping[str, Any]) -> SemanticCompressor:
    """Fresh latents on the backbone of torchvision's efficientnet_v2_s file; changes: constructor keywords.

    ValueError when the file is not one of torchvision's EfficientNetV2-S. Nothing in it is run.
    """
    try:
        state = read_pickled(path)
        backbone = {key.removeprefix(PREFIX): t for key, t in state.items() if key.startswith(PREFIX)}
        compressor = SemanticCompressor(**changes)
        compressor.backbone.load_state_dict(backbone)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not torchvision's efficientnet_v2_s ({reason})") from error
    return compressor
