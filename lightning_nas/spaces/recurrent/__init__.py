"""Recurrent cells and the language model around them."""
