"""Neuroevolution on top of `zoo`: nothing here yet.

What this package will hold (genomes, selection, deep genetic algorithms, novelty search) stands on
`zoo` and never imports `federated`.
"""
