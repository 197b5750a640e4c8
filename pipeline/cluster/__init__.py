"""Where replicas run: nodes, placement, waiting for room, sharing with other runs."""
