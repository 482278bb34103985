"""3D-Aware Video Generation: 3D-aware video from noise (Bahmani et al., TMLR 2023, arXiv:2206.14797)."""
