"""Optimizers around optimizers: what any method gains without knowing of it."""
