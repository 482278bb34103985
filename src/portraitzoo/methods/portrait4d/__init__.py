"""Portrait4D, Portrait4D-static and Portrait4D-v2: one photo to an animatable head."""
