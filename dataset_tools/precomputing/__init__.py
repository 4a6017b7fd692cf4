"""What `precompute` does: settings of a training, its networks, what they say of samples, shards of that."""
