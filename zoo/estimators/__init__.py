"""Gradients of black boxes: laws of directions, a stencil along them, and how wide the stencil is."""
