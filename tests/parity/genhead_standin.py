"""The synthetic head model in FLAME's shapes that the reference numbers of GenHead were made with."""

from functools import lru_cache

import numpy as np
import reference

from portraitzoo.faces.flame_arrays import FlameArrays
from portraitzoo.faces.flame_head import FlameHead


@lru_cache(maxsize=1)
def standin_arrays() -> FlameArrays:
    """Its arrays: those stored, and the bases, which are waves over the template."""
    file = np.load(reference.reference_folder("genhead") / "flame_standin.npz")
    template = file["v_template"]
    phase = 2 * np.pi * (template @ file["basis.shape_freq"].T) / 0.2 + file["basis.shape_phase"]
    shapedirs = (file["basis.shape_amp"] * file["basis.shape_dir"].T)[None] * np.sin(phase)[:, None]
    phase = 2 * np.pi * (template @ file["basis.pose_freq"].T) / 0.25 + file["basis.pose_phase"]
    posedirs = 0.002 * file["basis.pose_dir"].T[None] * np.cos(phase)[:, None]
    assert np.allclose(shapedirs[::503, :, ::40], file["check.shapedirs"], atol=1e-7)
    assert np.allclose(posedirs[::503, :, ::6], file["check.posedirs"], atol=1e-7)
    return FlameArrays(
        v_template=template,
        faces=file["faces"],
        shapedirs=shapedirs.astype(np.float32),
        posedirs=posedirs.astype(np.float32),
        J_regressor=file["J_regressor"],
        lbs_weights=file["weights"],
        static_faces=file["landmarks.static_lmk_faces_idx"],
        static_barycentric=file["landmarks.static_lmk_bary_coords"],
        contour_faces=file["landmarks.dynamic_lmk_faces_idx"],
        contour_barycentric=file["landmarks.dynamic_lmk_bary_coords"],
        full_faces=file["landmarks.full_lmk_faces_idx"][0],
        full_barycentric=file["landmarks.full_lmk_bary_coords"][0],
        face=file["masks.face"],
        lips=file["masks.lips"],
        no_inner_mouth=file["masks.noinmouth"],
        small_face=file["addition.smallface_idxs"],
        eyelids=file["addition.eyelids_idxs"],
        dynamic=file["addition.dynamic_idxs"],
        left_eyeball=file["masks.left_eyeball"],
        right_eyeball=file["masks.right_eyeball"],
        rings=file["addition.vertices_region_idxs"],
        coarse_vertices=file["coarse.idxs"],
        coarse_weights=file["coarse.baris"],
        coarse_faces=file["coarse.faces"],
        coarse_regions=file["coarse.coarse_face_region_idxs"],
    )


@lru_cache(maxsize=1)
def standin_head() -> FlameHead:
    """The head that its arrays set up."""
    return FlameHead.from_arrays(standin_arrays())
