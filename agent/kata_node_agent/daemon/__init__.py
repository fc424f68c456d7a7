"""Owns everything that runs: what starts in which order, what ends how, signals, reload, and what systemd is told."""
