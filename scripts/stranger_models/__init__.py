"""Models of well-known packages, small and with random weights, and what is true of them."""
