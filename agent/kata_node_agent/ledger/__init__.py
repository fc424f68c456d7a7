"""Which memory is promised to which VM: the rules (pure), the durable store, and the gate that others ask."""
