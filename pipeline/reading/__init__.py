"""Input addresses in, shards and their rows out."""
