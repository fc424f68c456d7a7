"""Measures the project against the figures of its design, each beside a peer or a floor of the same run.

`python -m bench --help` tells the rest. One file a topic; `programs/` are what runs in processes of their own. Nothing here
asserts: a figure that is not reached is a "no" in the table, for people to judge with the machine in mind.
"""
