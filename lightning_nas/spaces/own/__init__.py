"""Choices in a network of a user's own, and the space that they are."""
