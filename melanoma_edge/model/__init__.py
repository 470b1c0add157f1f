"""The network, its training, its quantization, and the run directory that keeps what came of it."""
