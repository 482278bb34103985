"""Official weights of the networks that look at faces."""
