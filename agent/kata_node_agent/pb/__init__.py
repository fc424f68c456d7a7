"""Protobuf and gRPC modules, generated from proto/ by setup.py. Nothing here is written by hand."""
