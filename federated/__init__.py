"""Federated optimization without gradients, on top of `zoo`: nothing here yet.

What this package will hold (messages, clients, servers, their algorithms) stands on `zoo` and never
imports `evolution`.
"""
