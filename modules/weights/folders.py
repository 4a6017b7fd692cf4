"""Where in a folder a network's weights lie: runs, folders of released files, diffusers' pipelines."""

from pathlib import Path

# The folders of diffusers' pipelines (released ones, and the combined one) by what they hold for us.
COMPONENTS = {
    "stage_a": ("vqgan",),
    "stage_b": ("decoder", "decoder_lite"),
    "stage_c": ("prior", "prior_prior", "prior_lite"),
    "text_encoder": ("text_encoder", "prior_text_encoder"),
    "image_encoder": ("image_encoder", "prior_image_encoder"),
}
# Stems of files, in the order in which they are looked for; the last are checkpoints of ComfyUI.
RELEASED_FILES = {
    "stage_a": ("stage_a", "stable_cascade_stage_b"),
    "stage_b": ("stage_b", "stage_b_bf16", "stage_b_lite", "stage_b_lite_bf16", "stable_cascade_stage_b"),
    "stage_c": ("stage_c", "stage_c_bf16", "stage_c_lite", "stage_c_lite_bf16", "stable_cascade_stage_c"),
    "semantic_compressor": ("semantic_compressor", "effnet_encoder", "stable_cascade_stage_c"),
    "previewer": ("previewer", "stable_cascade_stage_c"),
}
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def weights_in_folder(folder: Path, name: str, ema: bool = True) -> Path | None:
    """The weight file of network or encoder `name` in a folder that holds one in any known way, else None.

    Known are: a component of diffusers' or transformers' (config.json and weights); a pipeline of these; a
    run's folder; and a folder of files, called as ours or as released.
    """
    if is_component(folder):
        return component_weights(folder)
    endings = ("_ema", "") if ema else ("",)
    files = [folder / "weights" / f"{name}{ending}.safetensors" for ending in endings]
    files += [folder / f"{stem}.safetensors" for stem in RELEASED_FILES.get(name, (name,))]
    components = (component_weights(folder / component) for component in COMPONENTS.get(name, ()))
    return next((file for file in (*files, *components) if file and file.is_file()), None)


def is_component(folder: Path) -> bool:
    """Whether a folder holds one network or encoder as diffusers and transformers save it."""
    return (folder / "config.json").is_file()


def component_weights(folder: Path) -> Path | None:
    """The weights in a component's folder.

    Rather the full ones than a variant, one file than several, safetensors than a pickle.
    """
    files = [
        file
        for stem in WEIGHT_STEMS
        for file in folder.glob(f"{stem}*")
        if file.name.endswith(".bin") or ".safetensors" in file.name
    ]
    whole = [file for file in files if "-of-" not in file.name]
    return min(whole, key=_last_choice, default=None)


def _last_choice(file: Path) -> tuple[bool, bool, bool, str]:
    """By which of several weight files the first is taken."""
    return _is_variant(file), file.suffix == ".json", file.suffix == ".bin", file.name


def _is_variant(file: Path) -> bool:
    """Whether there is more in its name (bf16, say) than name and endings."""
    known = {*WEIGHT_STEMS, "safetensors", "bin", "index", "json"}
    return bool(set(file.name.split(".")) - known)


def encoder_folder(source: str | Path, name: str) -> Path | None:
    """The folder of encoder `name`, with its config, in one as in `weights_in_folder`; None without it."""
    file = weights_in_folder(Path(source), name)
    return file.parent if file and is_component(file.parent) else None


def folder_around(file: Path) -> Path:
    """The folder that holds what belongs to a weight file: its run, its pipeline, or its own folder."""
    inside = is_component(file.parent) or file.parent.name == "weights"
    return file.parent.parent if inside else file.parent


def tokenizer_folder(encoder: str | Path) -> Path | None:
    """Where the tokenizer of a text encoder lies: in its folder, or in the one beside it, as in pipelines."""
    encoder = Path(encoder)
    beside = encoder.with_name(encoder.name.replace("text_encoder", "tokenizer"))
    for folder in (encoder, beside):
        if any((folder / file).is_file() for file in TOKENIZER_FILES):
            return folder
    return None
