"""What is measured beside, or makes noise: each file is run as a program of its own."""
