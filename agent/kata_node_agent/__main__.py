"""`python -m kata_node_agent` is the `kata-node-agent` command."""

from kata_node_agent.cli.main import main

if __name__ == "__main__":
    main()
