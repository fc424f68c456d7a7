"""Reads the node under one host root: facts only, every path through ``HostRoot``, nothing ever changed."""
