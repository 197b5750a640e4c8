"""An output folder: its job, plans, shards, manifests and success marker."""
