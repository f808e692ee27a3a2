"""Neuroevolution: genetic algorithms, novelty search and evolution strategies on environments.

It stands on `zoo` and never imports `federated`.
"""
