"""What all web pages of Kaskade share: their look, and how they are served."""

from modules.web.look import page
from modules.web.serving import page_folder, serve

__all__ = ["page", "page_folder", "serve"]
