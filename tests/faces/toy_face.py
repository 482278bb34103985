"""The Basel face model's structure with made-up data: a patch of 3 x 3 vertices that bulges to the viewer."""

import numpy as np

from portraitzoo.faces.bfm import CENTER, BfmArrays


def patch(**changed: np.ndarray) -> BfmArrays:
    """Its arrays, some of them replaced."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid([-1.0, 0.0, 1.0], [1.0, 0.0, -1.0])
    mean = np.stack([x, y, -0.3 * x**2], -1).reshape(9, 3) + CENTER
    cells = [k for k in range(8) if k % 3 < 2 and k < 6]
    faces = np.array([t for k in cells for t in ([k, k + 3, k + 1], [k + 1, k + 3, k + 4])])
    rings = np.full((9, 8), len(faces))
    for vertex in range(9):
        around = np.flatnonzero((faces == vertex).any(1))
        rings[vertex, : len(around)] = around
    arrays = {
        "mean": mean,
        "identity": random.normal(0, 0.02, (9, 3, 80)),
        "expression": random.normal(0, 0.02, (9, 3, 64)),
        "albedo": np.full((9, 3), 127.5),
        "texture": random.normal(0, 2, (9, 3, 80)),
        "triangles": faces,
        "rings": rings,
        "keypoints": np.arange(68) % 9,
    }
    return BfmArrays(**arrays | changed)
