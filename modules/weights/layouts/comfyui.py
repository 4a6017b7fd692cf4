"""ComfyUI's files: a U-Net with separate projections, alone or with the encoders and decoders beside it.

Stage C's checkpoint holds the text and picture encoders, the compressor and the previewer; Stage B's holds
the text encoder and Stage A.
"""

from collections.abc import Mapping

from modules.weights.layouts.projections import separated
from modules.weights.lazy import LazyTensor, State

UNET, VAE = "model.diffusion_model.", "vae."
TEXT, TEXT_OLD = "text_encoder.clip_g.transformer.", "text_encoder.clip_g."
IMAGE = "clip_l_vision."
COMPRESSOR, PREVIEWER = "encoder.", "previewer."
UNETS = ("stage_c", "stage_b")
COMPANIONS = {  # what lies beside each U-Net, and under which prefix
    "stage_c": {
        "text_encoder": TEXT,
        "image_encoder": IMAGE,
        "semantic_compressor": VAE + COMPRESSOR,
        "previewer": VAE + PREVIEWER,
    },
    "stage_b": {"text_encoder": TEXT, "stage_a": VAE},
}
# The compressor's mean and deviation of pictures, which ComfyUI keeps among the weights and we do not.
IGNORED = (COMPRESSOR + "mean", COMPRESSOR + "std")


def groups(state: State) -> list[dict[str, LazyTensor]]:
    """The tensors of each network in a file, without their prefixes; of any other file, all of them.

    ValueError, naming some, when a checkpoint has tensors under none of the known prefixes.
    """
    if not any(name.startswith(UNET) for name in state):
        return decoders(state)
    found: dict[str, dict[str, LazyTensor]] = {prefix: {} for prefix in (UNET, TEXT, TEXT_OLD, IMAGE, VAE)}
    unknown = []
    for name, tensor in state.items():
        prefix = next((each for each in found if name.startswith(each)), None)
        if prefix is None:
            unknown.append(name)
        else:
            found[prefix][name.removeprefix(prefix)] = tensor
    if unknown:
        few = ", ".join(sorted(unknown)[:5])
        raise ValueError(f"{len(unknown)} tensors of a checkpoint not understood: {few}")
    found[TEXT] |= found.pop(TEXT_OLD)
    return [*(group for prefix, group in found.items() if group and prefix != VAE), *decoders(found[VAE])]


def decoders(state: State) -> list[dict[str, LazyTensor]]:
    """A compressor and a previewer that share a file, each for itself; the tensors of any other file."""
    state = {name: tensor for name, tensor in state.items() if name not in IGNORED}
    halves = [
        {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for prefix in (COMPRESSOR, PREVIEWER)
    ]
    known = (COMPRESSOR + "backbone.", COMPRESSOR + "mapper.", PREVIEWER)
    both = state and all(name.startswith(known) for name in state)
    return [half for half in (halves if both else [state]) if half]


def checkpoint(unet: str, networks: Mapping[str, State]) -> dict[str, LazyTensor]:
    """One checkpoint of a U-Net (stage_b or stage_c) and those of the networks that belong beside it."""
    prefixes = {unet: UNET, **COMPANIONS[unet]}
    return {
        prefixes[name] + key: tensor
        for name, state in networks.items()
        if name in prefixes
        for key, tensor in to_theirs(name, state).items()
    }


def to_theirs(name: str, state: State) -> dict[str, LazyTensor]:
    """The tensors of one network under the names that ComfyUI saves them with, without prefix."""
    return separated(state, parent="attention.attn") if name in UNETS else dict(state)
