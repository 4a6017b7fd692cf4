"""What `pack` does: finding pictures and captions, preparing them, writing shards again only where needed."""
