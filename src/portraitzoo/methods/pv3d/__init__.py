"""PV3D: 3D-aware portrait video from noise (Xu et al., ICLR 2023, arXiv:2212.06384)."""
