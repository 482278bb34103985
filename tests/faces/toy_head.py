"""A made-up head in FLAME's structure, small enough for tests: a ball with two small balls for eyes."""

from dataclasses import fields

import numpy as np

from portraitzoo.faces.flame_arrays import FlameArrays


def ball(center: tuple[float, float, float], radius: float, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces (counter-clockwise from outside) of a ball with poles up and down."""
    down, around = np.meshgrid(
        np.arange(1, rows) * np.pi / rows, np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    ring = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], -1).reshape(-1, 3)
    vertices = np.concatenate([[[0, 1, 0]], ring, [[0, -1, 0]]]) * radius + np.array(center)
    last, faces = len(vertices) - 1, []
    for c in range(columns):
        n = (c + 1) % columns
        faces.append([0, 1 + c, 1 + n])
        for r in range(rows - 2):
            a, b = 1 + r * columns + c, 1 + r * columns + n
            faces += [[a, a + columns, b + columns], [a, b + columns, b]]
        base = 1 + (rows - 2) * columns
        faces.append([base + c, last, base + n])
    return vertices, np.array(faces)


def toy_arrays(seed: int = 0) -> FlameArrays:
    """Its arrays, in metres; offsets and weights are random."""
    random = np.random.default_rng(seed)
    skin, skin_faces = ball((0, 0, 0), 0.1, 10, 14)
    eyes = [ball((x, 0.03, 0.09), 0.012, 5, 6) for x in (0.03, -0.03)]
    v_template = np.concatenate([skin, *(vertices for vertices, _ in eyes)])
    size, head, eye = len(v_template), len(skin), len(eyes[0][0])
    faces = np.concatenate([skin_faces, eyes[0][1] + head, eyes[1][1] + head + eye])
    left, right = np.arange(head, head + eye), np.arange(head + eye, size)
    weights = random.random((size, 5)) * [1, 1, 1, 0, 0]
    weights[left], weights[right] = [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]
    weights /= weights.sum(1, keepdims=True)
    regressor = random.random((5, size)) * (random.random((5, size)) < 0.1)
    regressor[3:] = 0
    regressor[3, left], regressor[4, right] = 1, 1
    regressor /= regressor.sum(1, keepdims=True)

    rings = np.full((size, 10), size)
    for vertex in range(size):
        around = np.setdiff1d(faces[(faces == vertex).any(1)], [vertex])
        ring = np.concatenate([[vertex], around])[:10]
        rings[vertex, : len(ring)] = ring

    def on_faces(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        barycentric = random.random((*shape, 3))
        return random.integers(0, len(skin_faces), shape), barycentric / barycentric.sum(-1, keepdims=True)

    static, contour, full = on_faces(53), on_faces(79, 17), on_faces(70)
    contour[0][:, :] = np.arange(79)[:, None] + np.arange(17)
    coarse_regions = np.full((len(skin_faces), 50), size)
    coarse_regions[:, :3] = np.sort(skin_faces, axis=1)
    return FlameArrays(
        v_template=v_template,
        faces=faces,
        shapedirs=random.normal(0, 1e-3, (size, 3, 400)),
        posedirs=random.normal(0, 1e-3, (size, 3, 36)),
        J_regressor=regressor,
        lbs_weights=weights,
        static_faces=static[0],
        static_barycentric=static[1],
        contour_faces=contour[0],
        contour_barycentric=contour[1],
        full_faces=full[0],
        full_barycentric=full[1],
        face=np.flatnonzero((v_template[:, 2] > 0.02) & (np.arange(size) < head)),
        lips=np.flatnonzero((np.abs(v_template[:, 1] + 0.03) < 0.02) & (v_template[:, 2] > 0.06)),
        no_inner_mouth=np.arange(size)[np.arange(size) != 5],
        small_face=np.flatnonzero(v_template[:, 2] > 0.05),
        eyelids=np.flatnonzero((v_template[:, 1] > 0.02) & (v_template[:, 2] > 0.07) & (np.arange(size) < head)),
        dynamic=np.arange(20),
        left_eyeball=left,
        right_eyeball=right,
        rings=rings,
        coarse_vertices=np.repeat(np.arange(head)[:, None], 3, axis=1),
        coarse_weights=np.tile([[1.0, 0.0, 0.0]], (head, 1)),
        coarse_faces=skin_faces,
        coarse_regions=coarse_regions,
    )


def as_dict(arrays: FlameArrays) -> dict[str, np.ndarray]:
    """Arrays by name."""
    return {item.name: getattr(arrays, item.name) for item in fields(arrays)}
