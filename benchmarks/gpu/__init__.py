"""What a GPU has to prove: the same answers as on a CPU, and how fast."""
