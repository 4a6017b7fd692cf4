"""Shards in: the format, the stream that training reads, and the commands that make shards."""
