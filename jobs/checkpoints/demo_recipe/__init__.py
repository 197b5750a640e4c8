"""How the demo checkpoint is made."""
