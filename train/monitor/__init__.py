"""A page that shows runs while they train: what they wrote is read, nothing of them is touched."""
