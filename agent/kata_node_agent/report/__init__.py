"""The node as a whole in one document: what it has, what is kept from pods, what is used, what to change."""
