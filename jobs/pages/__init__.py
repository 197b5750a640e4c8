"""HTML pages of what a run did: one template, plots as inline SVG, nothing fetched from anywhere."""
