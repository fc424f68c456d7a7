"""The container runtime asks us about pods and containers: frames, multiplexer, connection, and the plugin that answers."""
