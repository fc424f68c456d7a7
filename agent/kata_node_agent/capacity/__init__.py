"""Pure arithmetic: what the node has, what one VM takes, which devices kubelet is to see. Nothing is read here."""
