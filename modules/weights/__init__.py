"""Weight files: reading, writing, finding, and recognising those of the official release."""

from modules.weights.files import fingerprint, read_header, read_tensors, save_network
from modules.weights.folders import encoder_folder, folder_around
from modules.weights.loading import contents, describe, find_weights, load_network

__all__ = [
    "contents",
    "describe",
    "encoder_folder",
    "find_weights",
    "fingerprint",
    "folder_around",
    "load_network",
    "read_header",
    "read_tensors",
    "save_network",
]
