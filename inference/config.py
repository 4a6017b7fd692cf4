"""The settings of `python -m inference`, checked before anything is loaded."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from inference.adapters import ControlSettings, ImagePromptSettings, LoRASettings, Margins
from inference.facts import MOST_ROWS
from inference.loading import CascadeSettings
from inference.settings import Request, StageSettings

MOST_PICTURES = 1_000_000


@dataclass(frozen=True)
class Config(CascadeSettings):
    """Everything the command line can set; configs/inference.yaml explains each entry."""

    task: str = "text_to_image"
    prompt: str | list[str] = ""
    prompts_file: str | None = None
    negative_prompt: str = ""
    image: str | list[str] | None = None
    strength: float | None = None
    mask: str | list[str] | None = None
    margins: Margins = Margins()
    keep: bool = True
    edge_px: int | None = None
    loras: tuple[LoRASettings, ...] = ()
    controls: tuple[ControlSettings, ...] = ()
    image_prompt: ImagePromptSettings = ImagePromptSettings()
    num_images: int = 1
    seed: int | list[int] | None = None
    width_px: int | None = None
    height_px: int | None = None
    batch_size: int = 4
    stage_c: StageSettings = StageSettings()
    stage_b: StageSettings = StageSettings()
    recreate: str | None = None
    output: str = "outputs/pictures"
    sheet: bool = False

    def __post_init__(self) -> None:
        if Path(self.output).is_file():
            raise ValueError(f"output: expected a folder, found the file {self.output}")
        for name, most in (("num_images", MOST_PICTURES), ("batch_size", MOST_ROWS)):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
            if getattr(self, name) > most:
                raise ValueError(f"{name}: expected at most {most}, found {getattr(self, name)}")
        for name in ("prompt", "seed", "image", "mask"):
            if getattr(self, name) == []:
                raise ValueError(f"{name}: expected some, found an empty list; leave it out")


def plan(config: Config, random_seed: int) -> list[Request]:
    """The pictures that the settings ask for: every prompt (and image) with every seed.

    random_seed: where to start when no seed is given. A single seed counts up to num_images seeds.
    """
    if isinstance(config.seed, list):
        if config.num_images not in (1, len(config.seed)):
            raise ValueError(
                f"num_images: {config.num_images}, but {len(config.seed)} seeds are given; leave it out"
            )
        seeds = config.seed
    else:
        first = random_seed if config.seed is None else config.seed
        seeds = [first + i for i in range(config.num_images)]
    varied = {"prompt", "seed", "image", "mask"}
    shared = {f.name: getattr(config, f.name) for f in fields(Request) if f.name not in varied}
    return [
        Request(prompt=prompt, image=image, mask=mask, seed=seed, **shared)
        for prompt in ([config.prompt] if isinstance(config.prompt, str) else config.prompt)
        for image, mask in read_pictures(config)
        for seed in seeds
    ]


def read_pictures(config: Config) -> list[tuple[str | None, str | None]]:
    """The pictures to start from, each with its mask; one mask serves all pictures."""
    images = config.image if isinstance(config.image, list) else [config.image]
    masks = config.mask if isinstance(config.mask, list) else [config.mask] * len(images)
    if len(masks) != len(images):
        raise ValueError(f"mask: {len(masks)} for {len(images)} images; expected one, or one for each")
    return list(zip(images, masks, strict=True))


def changed_keys(config: Config) -> list[str]:
    """Names of the top-level settings that are not at their defaults."""
    default = asdict(Config())
    return [key for key, value in asdict(config).items() if value != default[key]]
