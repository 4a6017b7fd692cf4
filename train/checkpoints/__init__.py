"""Checkpoints: folders of shards that all ranks write while training goes on, checked before reading."""
