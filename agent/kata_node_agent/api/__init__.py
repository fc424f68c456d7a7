"""What the agent itself serves: its own gRPC service, health and reflection, on a Unix socket; health alone on TCP."""
