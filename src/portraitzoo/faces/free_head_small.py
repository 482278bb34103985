"""The free head with a quarter of its vertices, for networks whose weights are to stay small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from portraitzoo.faces.flame import JAW
from portraitzoo.faces.flame_arrays import FlameArrays
from portraitzoo.faces.free_head_fit import FreeHeadFit, joint_regressor, neighbourhood_tables
from portraitzoo.faces.free_head_landmarks import attach
from portraitzoo.faces.mesh_tables import decimate

HEAD, EYE = 1200, 40
COARSE_HEAD, COARSE_EYE = 500, 30
_FACE, _FINER = 1.5, 3.0
"""How much closer vertices lie on the face, and about lips and eyelids."""
_OPENING = 0.05
_PARTS = ("face", "lips", "no_inner_mouth", "small_face", "eyelids", "dynamic")


def coarsened(fit: FreeHeadFit) -> FreeHeadFit:
    """The fit on fewer of its vertices: 1200 of the head, closer together about mouth and eyes, and 40 of each eyeball.
    Coefficients mean the same.

    Args:
        fit: of the whole head.
    """
    whole = fit.arrays
    eyes = np.concatenate([whole.left_eyeball, whole.right_eyeball])
    density = np.ones(len(whole.v_template))
    density[whole.face] = _FACE
    density[np.concatenate([whole.lips, whole.eyelids])] = _FINER
    kept: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    of_head = whole.faces[~np.isin(whole.faces, eyes).all(1)]
    of_eyes = [whole.faces[np.isin(whole.faces, eye).all(1)] for eye in (whole.left_eyeball, whole.right_eyeball)]
    for part, count in zip((of_head, *of_eyes), (HEAD, EYE, EYE), strict=True):
        chosen, between, _ = decimate(whole.v_template, part, count, density)
        faces.append(between + sum(map(len, kept)))
        kept.append(chosen)
    vertices, triangles = np.concatenate(kept), np.concatenate(faces)
    template = whole.v_template[vertices]
    left, right = HEAD + np.arange(EYE), HEAD + EYE + np.arange(EYE)
    both = np.concatenate([left, right])

    joints = whole.J_regressor @ whole.v_template
    regressor = np.zeros((len(joints), len(vertices)))
    regressor[:3] = [joint_regressor(template, joint, both) for joint in joints[:3]]
    regressor[3, left] = regressor[4, right] = 1 / EYE
    parts = {name: np.flatnonzero(np.isin(vertices, getattr(whole, name))) for name in _PARTS}
    arrays = FlameArrays(
        v_template=template,
        faces=triangles,
        shapedirs=whole.shapedirs[vertices],
        posedirs=whole.posedirs[vertices],
        J_regressor=regressor,
        lbs_weights=whole.lbs_weights[vertices],
        left_eyeball=left,
        right_eyeball=right,
        **parts,
        **_landmarks(whole, vertices, triangles, parts["no_inner_mouth"], both),
        **neighbourhood_tables(template, triangles, both, COARSE_HEAD, COARSE_EYE),
    )
    return replace(fit, arrays=arrays, source=fit.source[vertices])


def _landmarks(
    whole: FlameArrays, vertices: np.ndarray, faces: np.ndarray, outside: np.ndarray, eyes: np.ndarray
) -> dict[str, np.ndarray]:
    """The landmarks, each on the face of the smaller mesh that is closest to where it was; with the mouth opened, or
    those of one lip would land on the other.
    """
    opened = whole.v_template - whole.lbs_weights[:, JAW, None] * [0.0, _OPENING, 0.0]
    of_eyes = np.isin(faces, eyes).all(1)
    skin, balls = np.flatnonzero(np.isin(faces, outside).all(1) & ~of_eyes), np.flatnonzero(of_eyes)
    tables = {}
    for name in ("static", "contour", "full"):
        where, weights = getattr(whole, f"{name}_faces"), getattr(whole, f"{name}_barycentric")
        points = (opened[whole.faces[where]] * weights[..., None]).sum(-2).reshape(-1, 3)
        chosen, barycentric = attach(points, opened[vertices], faces, skin)
        if name != "contour":
            chosen[-2:], barycentric[-2:] = attach(points[-2:], opened[vertices], faces, balls)
        tables[f"{name}_faces"] = chosen.reshape(where.shape)
        tables[f"{name}_barycentric"] = barycentric.reshape(weights.shape)
    return tables
