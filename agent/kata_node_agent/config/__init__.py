"""Our own configuration: what can be set (`schema`), and where each value came from (`load`)."""

from kata_node_agent.config.load import DEFAULT_FILE, Loaded, load
from kata_node_agent.config.schema import Config, Mode

__all__ = ["DEFAULT_FILE", "Config", "Loaded", "Mode", "load"]
