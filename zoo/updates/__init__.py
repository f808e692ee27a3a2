"""What becomes of gradients before a step is taken: pure `init` and `update` pairs on flat arrays."""
