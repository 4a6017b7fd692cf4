"""The web page: `python -m inference.app run=outputs/demo`."""
