"""What other programs on the node are configured to do: kubelet, later Kata. Their files are read, never written."""
