"""Feature networks, metrics, protocols and the report."""
