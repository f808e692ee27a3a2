"""Consensus-based optimization, its variants, and consensus hopping.

Particles move towards a consensus point, the mean of all weighted by exp(-alpha f), and look around on the
way.
`weights` holds the point and how it is put together from parts, `dynamics` the schemes of a step, `swarm` and
`noise` what all variants stand on; each variant is a file of its own, to be read beside its paper.
"""
