"""How weights are updated: optimizers, learning rates, bf16 weights, updates within the backward pass."""
