"""What recipes learn by: the losses, and what steers them from step to step."""
