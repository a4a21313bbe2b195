"""What people look at: cells as graphs, weights, scores, curves."""
