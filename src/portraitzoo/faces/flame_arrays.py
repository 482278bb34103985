"""What FLAME's files say, as plain arrays with their shapes checked, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from portraitzoo.faces.model_arrays import check_arrays

NUM_SHAPE, NUM_EXPRESSION, NUM_JOINTS = 300, 100, 5
CONTOUR_ROWS, CONTOUR_POINTS, STATIC_LANDMARKS, LANDMARKS = 79, 17, 53, 70
RING_SIZE, REGION_SIZE = 10, 50

PARENTS = (-1, 0, 1, 1, 1)
"""Root, neck, jaw, left eye, right eye."""


@dataclass(frozen=True)
class FlameArrays:
    """A head model of FLAME's structure in its own units (metres; x to the head's left, y up, z to the front).

    V is the number of vertices (5023 for FLAME), F of faces (9976), W and G those of the decimated mesh (730 and 1394).
    Index tables with rows of different length are padded with V.

    Attributes:
        v_template: mean head.
        faces: triangles, counter-clockwise seen from outside.
        shapedirs: offsets of 300 identity, then 100 expression coefficients.
        posedirs: offsets of the 36 pose features, the entries of R - I of neck, jaw and eyes.
        J_regressor: joints (root, neck, jaw, left eye, right eye) as weighted means of vertices.
        lbs_weights: skinning weights.
        static_faces, static_barycentric: where the 51 inner landmarks and the two pupils lie.
        contour_faces, contour_barycentric: where the 17 landmarks of the face's outline lie, for 79 yaws.
        full_faces, full_barycentric: where the 68 landmarks of a frontal view and the two pupils lie.
        face, lips, no_inner_mouth, small_face, eyelids, dynamic: vertices of regions; ``small_face`` holds the
            eyeballs too, ``dynamic`` is where expressions move the skin.
        left_eyeball, right_eyeball: vertices of the eyeballs, which follow those of the head.
        rings: each vertex, then its neighbours.
        coarse_vertices, coarse_weights: each vertex of the decimated mesh as an affine combination of three.
        coarse_faces: its triangles.
        coarse_regions: vertices (of the full mesh) around each of its triangles, ascending.

    Raises:
        ZooError: naming the array that does not fit.
    """

    v_template: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    shapedirs: Float[np.ndarray, "vertices 3 400"]
    posedirs: Float[np.ndarray, "vertices 3 36"]
    J_regressor: Float[np.ndarray, "5 vertices"]
    lbs_weights: Float[np.ndarray, "vertices 5"]
    static_faces: Int[np.ndarray, " 53"]
    static_barycentric: Float[np.ndarray, "53 3"]
    contour_faces: Int[np.ndarray, "79 17"]
    contour_barycentric: Float[np.ndarray, "79 17 3"]
    full_faces: Int[np.ndarray, " 70"]
    full_barycentric: Float[np.ndarray, "70 3"]
    face: Int[np.ndarray, " face"]
    lips: Int[np.ndarray, " lips"]
    no_inner_mouth: Int[np.ndarray, " no_inner_mouth"]
    small_face: Int[np.ndarray, " small_face"]
    eyelids: Int[np.ndarray, " eyelids"]
    dynamic: Int[np.ndarray, " dynamic"]
    left_eyeball: Int[np.ndarray, " left"]
    right_eyeball: Int[np.ndarray, " right"]
    rings: Int[np.ndarray, "vertices 10"]
    coarse_vertices: Int[np.ndarray, "coarse 3"]
    coarse_weights: Float[np.ndarray, "coarse 3"]
    coarse_faces: Int[np.ndarray, "coarse_faces 3"]
    coarse_regions: Int[np.ndarray, "coarse_faces 50"]

    def __post_init__(self) -> None:
        vertices, triangles = len(self.v_template), len(self.faces)
        coarse, coarse_triangles = len(self.coarse_vertices), len(self.coarse_faces)
        expected = {
            "v_template": (vertices, 3),
            "faces": (triangles, 3),
            "shapedirs": (vertices, 3, NUM_SHAPE + NUM_EXPRESSION),
            "posedirs": (vertices, 3, 9 * (NUM_JOINTS - 1)),
            "J_regressor": (NUM_JOINTS, vertices),
            "lbs_weights": (vertices, NUM_JOINTS),
            "static_faces": (STATIC_LANDMARKS,),
            "static_barycentric": (STATIC_LANDMARKS, 3),
            "contour_faces": (CONTOUR_ROWS, CONTOUR_POINTS),
            "contour_barycentric": (CONTOUR_ROWS, CONTOUR_POINTS, 3),
            "full_faces": (LANDMARKS,),
            "full_barycentric": (LANDMARKS, 3),
            "rings": (vertices, RING_SIZE),
            "coarse_vertices": (coarse, 3),
            "coarse_weights": (coarse, 3),
            "coarse_faces": (coarse_triangles, 3),
            "coarse_regions": (coarse_triangles, REGION_SIZE),
        }
        arrays = {item.name: getattr(self, item.name) for item in fields(self)}
        limits = dict.fromkeys(arrays, vertices) | dict.fromkeys(
            ("static_faces", "contour_faces", "full_faces"), triangles
        )
        limits |= {"coarse_faces": coarse, "rings": vertices + 1, "coarse_regions": vertices + 1}
        check_arrays("head model", _VERSION, arrays, expected, limits)


_VERSION = "FLAME 2020 with 300 shape and 100 expression directions is wanted"
