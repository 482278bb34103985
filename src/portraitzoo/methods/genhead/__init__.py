"""GenHead: the animatable part-wise head generator of Portrait4D (Deng et al., CVPR 2024, section 3.2)."""
