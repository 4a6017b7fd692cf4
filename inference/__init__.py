"""Pictures out: the cascade of stages, the tasks it does, and pictures that know how they were made."""

from inference.adapters import ControlSettings, ImagePromptSettings, LoRASettings, Margins
from inference.pictures import Picture, open_picture, write_picture
from inference.pipeline import Cascade
from inference.progress import Step
from inference.settings import Request, StageSettings, Weights
from inference.tasks import TASKS
from modules.pictures import contact_sheet

__all__ = [
    "TASKS",
    "Cascade",
    "ControlSettings",
    "ImagePromptSettings",
    "LoRASettings",
    "Margins",
    "Picture",
    "Request",
    "StageSettings",
    "Step",
    "Weights",
    "contact_sheet",
    "open_picture",
    "write_picture",
]
