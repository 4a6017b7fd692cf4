"""Training: one loop (`train.loop.run`), many recipes (`train.recipes`)."""
