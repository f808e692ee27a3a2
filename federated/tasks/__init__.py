"""What clients may have: functions with a known optimum, networks, attacks, metrics, and the user's own.

A new task is one file here, and a line in `federated.tasks.lookup` if it is to have a name.
"""
