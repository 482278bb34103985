"""Building blocks that know no method."""
