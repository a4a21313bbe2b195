"""Cells of image networks, one file per family, and the shell that stacks them."""
