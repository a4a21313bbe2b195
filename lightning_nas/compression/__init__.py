"""A smaller network of a trained one: widths by importance, replacements scored alone, the best combination of them."""
