"""One file per family of formats, which finds its rows and schema and reads a range of it, and what they share."""
