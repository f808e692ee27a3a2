"""What a client makes of the values it has seen: a derived Gaussian process, and random Fourier features."""
