"""Networks trained from forward passes alone."""
