"""Which Kata VMs run on the node, how big they are, and what they really cost. Kata's own sockets are never touched."""
