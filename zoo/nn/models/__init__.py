"""Networks given as stages, small enough to be trained from forward passes alone."""
