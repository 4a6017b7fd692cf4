"""Weight files: reading, writing, finding, and recognising those of the official release."""

from modules.weights.files import fingerprint, read_header, read_shapes, read_tensors, save_network
from modules.weights.loading import contents, describe, find_weights, load_network

__all__ = [
    "contents",
    "describe",
    "find_weights",
    "fingerprint",
    "load_network",
    "read_header",
    "read_shapes",
    "read_tensors",
    "save_network",
]
