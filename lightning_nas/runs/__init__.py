"""A run: its folder, the names of its files, and what a search leaves there."""
