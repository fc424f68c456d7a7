"""Keeps a Kubernetes node honest about Kata Containers. ARCHITECTURE.md says which room does what."""

__version__ = "0.1.0"
