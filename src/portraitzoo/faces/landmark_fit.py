"""Fitting a head of FLAME's structure to landmarks, as Portrait-4D's training data were made (Deng et al., CVPR 2024).

Stage 1 moves the head to where its landmarks are seen; stage 2 changes shape, expression and gaze too, while lids and
skin elsewhere stay close to the start. The head's turn and its jaw stay as they are. Any :class:`FLAME` will do, with
FLAME's data or the free head's.

Only what the losses see is computed: the vertices under the landmarks one by one, and the penalty on the moved surface
as an exact form of the change of the coefficients (:mod:`~portraitzoo.faces.landmark_surface`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame import FLAME
from portraitzoo.faces.flame_arrays import NUM_EXPRESSION, NUM_SHAPE
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_loss import IMAGE_SIZE, POINTS, LandmarkLoss
from portraitzoo.faces.landmark_surface import FEATURES, Skin, SurfaceForm
from portraitzoo.faces.rotations import rotation_matrix
from portraitzoo.faces.tracked_camera import FOCAL, tracked_camera

FLAME_LIDS: dict[int, tuple[int, ...]] = {
    37: (2452, 2454),
    38: (2471,),
    40: (2276,),
    41: (2360,),
    43: (1292,),
    44: (1217,),
    46: (999,),
    47: (827,),
}
"""Vertices of FLAME's lids (or two to take the middle of) that stand for landmarks better than its own table does."""
_FLAME_VERTICES = 5023
_REST = [NUM_EXPRESSION, 3, 3]  # expression, eyes and translation are optimised as one tensor
_START_DEPTH = -3 / (math.tan(math.radians(6)) * 6.2189)


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted; the defaults are Portrait-4D's.

    Attributes:
        placing_steps: of stage 1.
        posing_steps: between the stages, to turn the head and open the jaw as the landmarks want, for starts that say
            little of either. Portrait-4D has none, for its starts come from a regressor.
        fitting_steps: of stage 2.
        rate: learning rate of Adam in both.
        shape: weight of the sum of absolute changes of the shape coefficients.
        expression: of those of the expression.
        surface: of the mean square that vertices other than the lids' move by, in the head's unit.
        gaze: of the sum of absolute eye rotations.

    Raises:
        ZooError: for a negative number.
    """

    placing_steps: int = 1500
    fitting_steps: int = 3000
    posing_steps: int = 0
    rate: float = 1e-3
    shape: float = 4.0
    expression: float = 0.5
    surface: float = 1e6
    gaze: float = 0.1

    def __post_init__(self) -> None:
        wrong = [name for name, value in vars(self).items() if not value >= 0]
        if wrong:
            raise ZooError(f"{wrong[0]} of a landmark fit cannot be {getattr(self, wrong[0])}")


FROM_SCRATCH = FitSettings(500, 1500, 500, shape=0.5, expression=0.2, surface=0.0)
"""For starts that know nothing (all zeros), as for heads whose coefficients no regressor gives.

Four made-up people on the free head, turned by 17 degrees (one deviation) and acting: landmarks came within 3.5 pixels
of 512, the turn within 8 degrees, the skin within 4.4 mm (means).
"""


@dataclass(frozen=True)
class LandmarkFitResult:
    """Fitted heads.

    Attributes:
        head: parameters; the turn is in the neck, the eyes look the same way.
        translation: of the heads in camera coordinates (OpenGL axes).
        losses: before each step, of placing, posing and fitting.
    """

    head: FlameParameters
    translation: Float[Tensor, "batch 3"]
    losses: tuple[Float[Tensor, " placing_steps"], Float[Tensor, " posing_steps"], Float[Tensor, " fitting_steps"]]

    def labels(self) -> Float[Tensor, "batch 437"]:
        """What Portrait4D's data files say of the frames: camera, then shape, expression, turn, jaw and eyes."""
        return torch.cat([tracked_camera(self.head.pose[:, :3], self.translation), self.head.label()], dim=1)


class LandmarkFit:
    """Fits one head model to any number of faces.

    Args:
        flame: the model.
        lids: vertices that may move freely, those of the eyelids.
        points: vertices that stand for landmarks in place of the model's own points, by landmark.

    Raises:
        ZooError: if a vertex is named that the model does not have.
    """

    def __init__(
        self, flame: FLAME, lids: Int[Tensor, " lids"], points: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        self.flame = flame
        count, device = len(flame.v_template), flame.v_template.device
        named = [*lids.tolist(), *(vertex for vertices in (points or {}).values() for vertex in vertices)]
        wrong = [vertex for vertex in named if not 0 <= vertex < count]
        if wrong:
            raise ZooError(f"the landmark fit names a vertex {wrong[0]}, and the head has {count}")
        table = torch.zeros(POINTS, count, device=device)
        table.scatter_add_(1, flame.faces[flame.full_faces], flame.full_barycentric.float())
        for landmark, vertices in (points or {}).items():
            table[landmark] = 0
            table[landmark, list(vertices)] = 1 / len(vertices)
        held = torch.ones(count, dtype=torch.bool, device=device)
        held[lids.to(device)] = False
        seen = table.any(0).nonzero()[:, 0]
        self._table = table[:, seen]
        self._held = int(held.sum())
        self._surface = SurfaceForm(flame, held)
        self._face = Skin(flame, seen)
        self._near = Skin(flame, torch.cat([seen, (held & ~self._surface.covered).nonzero()[:, 0]]))

    @classmethod
    def of_head(cls, head: FlameHead) -> LandmarkFit:
        """For FLAME or the free head, with the vertices of its eyelids."""
        return cls(head.flame, head.eyelids, FLAME_LIDS if len(head.canonical) == _FLAME_VERTICES else None)

    def fit(
        self,
        start: FlameParameters,
        target: Float[Tensor, "batch 70 2"],
        *,
        one_person: bool = False,
        settings: FitSettings | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> LandmarkFitResult:
        """Fit heads to landmarks; faces influence each other only by when the best step is.

        Args:
            start: heads to begin with, the turn in the neck; their eyes are not looked at.
            target: :func:`~portraitzoo.faces.landmark_loss.fit_target`.
            one_person: whether all faces are of one clip and get one shape, which starts as the mean.
            settings: Portrait-4D's by default.
            on_step: called with the number of the step, counted over all stages, before each.

        Raises:
            ZooError: for other shapes, no faces, or numbers that are not finite.
        """
        settings = settings or FitSettings()
        device = self.flame.v_template.device
        if target.shape != (len(start), POINTS, 2) or not len(start):
            raise ZooError(f"{len(start)} heads are fitted to [{len(start)}, {POINTS}, 2], not {list(target.shape)}")
        if not torch.isfinite(target).all():
            raise ZooError("landmarks to fit to hold NaN or infinite numbers")
        start, loss = start.to(device, torch.float32), LandmarkLoss(target.float().to(device))
        shape = start.shape.mean(0, keepdim=True) if one_person else start.shape
        zeros = torch.zeros_like(start.pose[:, :3])
        place = zeros + zeros.new_tensor([0.0, 0.0, _START_DEPTH])

        face = self._face.rest(torch.cat([shape.expand(len(start), -1), start.expression], dim=1))
        still = self._landmarks(face, start.pose)
        (place,), placing = _descend(
            lambda at: loss.placing(seen_at(still, at)), [place], settings.placing_steps, settings.rate, on_step
        )
        (place, pose), posing = _descend(
            lambda at, pose: loss.placing(seen_at(self._landmarks(face, pose), at)),
            [place, start.pose],
            settings.posing_steps,
            settings.rate,
            _later(on_step, settings.placing_steps),
        )
        start = replace(start, pose=pose)
        task = _Task(self, shape, start, loss, settings)
        rest = torch.cat([start.expression, zeros, place], dim=1)
        (shape, rest), fitting = _descend(
            task.fitting,
            [shape, rest],
            settings.fitting_steps,
            settings.rate,
            _later(on_step, settings.placing_steps + settings.posing_steps),
            lambda _, rest: _turn_back(rest),
        )
        expression, eye, place = rest.split(_REST, dim=1)
        head = FlameParameters(
            shape.expand(len(start), -1).clone(), expression, start.pose, torch.cat([eye, eye], dim=1)
        )
        return LandmarkFitResult(head, place, (placing, posing, fitting))

    def _landmarks(self, face: Float[Tensor, "batch seen_and_joints 3"], pose: Float[Tensor, "batch 6"]) -> Tensor:
        """Landmarks, before they are moved, of heads at rest that turn and open their jaws."""
        jaw = _turn(pose[:, 3:])
        turns = torch.cat([jaw, torch.zeros_like(jaw)], dim=1)
        offsets = (jaw.detach().mT.flatten(1) @ self._face.jaw_correctives).unflatten(1, (-1, 3))
        return (self._table @ self._face.posed(face + offsets, turns)) @ rotation_matrix(pose[:, :3]).mT


class _Task:
    """The losses of one batch of faces."""

    def __init__(
        self, fit: LandmarkFit, shape: Tensor, start: FlameParameters, loss: LandmarkLoss, settings: FitSettings
    ) -> None:
        self.loss, self.batch = loss, len(start)
        self.near, self.table = fit._near, fit._table
        self.jaw = _turn(start.pose[:, 3:])
        self.head = rotation_matrix(start.pose[:, :3]).mT
        self.begin_shape, self.begin_rest = shape, torch.cat([start.expression, 0 * start.pose], dim=1)
        self.constant = self.near.template + self.jaw.mT.flatten(1) @ self.near.jaw_correctives
        self.coefficients = torch.cat([shape.expand(self.batch, -1), start.expression], dim=1)
        self.origin = self.constant + self.coefficients @ self.near.basis[:-FEATURES]
        self.per_vertex = settings.surface / (3 * fit._held * self.batch)
        sizes = [settings.shape] * NUM_SHAPE + [settings.expression] * NUM_EXPRESSION + [settings.gaze] * 3 + [0] * 3
        self.prices = shape.new_tensor(sizes) / self.batch
        self.surface, self.form = fit._surface, fit._surface.of_jaws(self.jaw)
        self.features = torch.cat([torch.ones(self.batch, 1).to(shape), self.jaw.mT.flatten(1)], dim=1)

    def fitting(self, shape: Tensor, rest: Tensor) -> Float[Tensor, ""]:
        """The loss of stage 2."""
        change = torch.cat([(shape - self.begin_shape).expand(self.batch, -1), rest - self.begin_rest], dim=1)
        moving, eye, place = change.split([NUM_SHAPE + NUM_EXPRESSION, 3, 3], dim=1)
        coefficients, eyes, near = self.coefficients + moving, _turn(eye), self.near
        # Correctives pass no gradient to the pose, as in the model itself.
        features = eyes.detach().mT.flatten(1)
        turns = torch.cat([self.jaw, eyes], dim=1)
        skin = torch.addmm(self.constant, torch.cat([coefficients, features], dim=1), near.basis)
        vertices = near.posed(skin.unflatten(1, (-1, 3)), turns)
        seen = self.table.shape[1]
        points = seen_at(torch.einsum("lv,bvc->blc", self.table, vertices[:, :seen]) @ self.head, place)

        # Written so that the gradient needs no second pass over the form, which is symmetric.
        slope = (moving.detach()[:, None] @ self.form)[:, 0]
        moved = (slope * (2 * moving - moving.detach())).sum()
        moved = moved + self.surface.of_eyes(moving, eyes, torch.cat([coefficients, self.features, features], dim=1))
        if near.count > seen:
            with torch.no_grad():
                before = torch.addmm(self.origin, features, near.basis[-FEATURES:]).unflatten(1, (-1, 3))
                before = near.posed(before, turns)
            moved = moved + (vertices[:, seen:] - before[:, seen:]).square().sum()
        absolute = (change.abs() @ self.prices).sum()
        return self.loss.fitting(points) + self.per_vertex * moved + absolute


def seen_at(points: Float[Tensor, "batch 70 3"], place: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 70 2"]:
    """Pixels, y up, of points of heads that are in a place."""
    x = points + place[:, None]
    return x[..., :2] / x[..., 2:] * (-FOCAL * IMAGE_SIZE) + IMAGE_SIZE / 2


def _turn(axis_angle: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """R - I, transposed."""
    return rotation_matrix(axis_angle).mT - torch.eye(3).to(axis_angle)


def _later(on_step: Callable[[int], None] | None, steps: int) -> Callable[[int], None] | None:
    return (lambda step: on_step(step + steps)) if on_step else None


def _turn_back(rest: Float[Tensor, "batch 106"]) -> None:
    """Turn eyes that look backwards by half a turn, in place."""
    eye = rest[:, NUM_EXPRESSION : NUM_EXPRESSION + 3]
    angle = eye.norm(dim=1, keepdim=True)
    eye.mul_(torch.where(angle > math.pi / 2, (angle - math.pi) / angle, 1))


def _descend(
    loss: Callable[..., Tensor],
    begin: list[Tensor],
    steps: int,
    rate: float,
    on_step: Callable[[int], None] | None,
    after: Callable[..., None] | None = None,
) -> tuple[list[Tensor], Float[Tensor, " steps"]]:
    """Adam; the values with the least loss of those looked at, and the losses."""
    values = [value.clone().requires_grad_() for value in begin]
    best = [value.clone() for value in begin]
    adam = torch.optim.Adam(values, lr=rate, fused=True)
    losses, least = begin[0].new_zeros(steps), begin[0].new_tensor(math.inf)
    for step in range(steps):
        if on_step:
            on_step(step)
        adam.zero_grad()
        with torch.enable_grad():
            found = loss(*values)
        found.backward()
        with torch.no_grad():
            losses[step] = found
            better = found < least
            least = torch.minimum(least, found)
            for kept, value in zip(best, values, strict=True):
                kept.copy_(torch.where(better, value, kept))
        adam.step()
        if after:
            with torch.no_grad():
                after(*values)
    return best, losses
