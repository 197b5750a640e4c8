"""An output folder in, what is in it out: nothing here annotates or writes."""
