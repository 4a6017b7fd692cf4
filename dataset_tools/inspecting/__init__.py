"""What `inspect` does: surveying shards, and saying and plotting what was found."""
