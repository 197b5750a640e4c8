"""One file a family of formats: what it holds (rows, schema), and a range of it as a table of rows."""
