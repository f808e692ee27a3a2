"""Reports of federations, and comparisons of several of them."""
