"""Jobs handed to a Ray cluster through Ray's job API."""
