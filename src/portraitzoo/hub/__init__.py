"""The index of models, downloading, safe reading of foreign checkpoints, converting, publishing."""
