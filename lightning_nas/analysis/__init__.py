"""What people look at: pictures, costs, comparisons."""
