"""Fitting a head of FLAME's structure to landmarks, as Portrait-4D's training data were made (Deng et al., CVPR 2024).

Stage 1 moves the head to where its landmarks are seen; stage 2 changes shape, expression and gaze too, while lids and
skin elsewhere stay close to the start. The head's turn and its jaw stay as they are. Any :class:`FLAME` will do, with
FLAME's data or the free head's.

Only what the losses see is computed. A step's penalty on the moved surface is an exact quadratic form of the change of
the coefficients wherever the eyes do not move the skin, for the jaw stays; the other vertices, and those under the
landmarks, are computed one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame import FLAME, JAW, LEFT_EYE, RIGHT_EYE
from portraitzoo.faces.flame_arrays import NUM_EXPRESSION, NUM_SHAPE
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_loss import IMAGE_SIZE, POINTS, LandmarkLoss
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
_START_DEPTH = -3 / (math.tan(math.radians(6)) * 6.2189)


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted; the defaults are Portrait-4D's.

    Attributes:
        placing_steps: of stage 1.
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
    rate: float = 1e-3
    shape: float = 4.0
    expression: float = 0.5
    surface: float = 1e6
    gaze: float = 0.1

    def __post_init__(self) -> None:
        wrong = [name for name, value in vars(self).items() if not value >= 0]
        if wrong:
            raise ZooError(f"{wrong[0]} of a landmark fit cannot be {getattr(self, wrong[0])}")


@dataclass(frozen=True)
class LandmarkFitResult:
    """Fitted heads.

    Attributes:
        head: parameters; the turn is in the neck, the eyes look the same way.
        translation: of the heads in camera coordinates (OpenGL axes).
        losses: before each step, of stage 1 and of stage 2.
    """

    head: FlameParameters
    translation: Float[Tensor, "batch 3"]
    losses: tuple[Float[Tensor, " placing_steps"], Float[Tensor, " fitting_steps"]]

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
        if named and not 0 <= min(named) <= max(named) < count:
            raise ZooError(f"the landmark fit names a vertex {max(named)}, and the head has {count}")
        table = torch.zeros(POINTS, count, device=device)
        table.scatter_add_(1, flame.faces[flame.full_faces], flame.full_barycentric.float())
        for landmark, vertices in (points or {}).items():
            table[landmark] = 0
            table[landmark, list(vertices)] = 1 / len(vertices)
        held = torch.ones(count, dtype=torch.bool, device=device)
        held[lids.to(device)] = False
        by_eyes = (flame.lbs_weights[:, [LEFT_EYE, RIGHT_EYE]] != 0).any(1)
        seen = table.any(0).nonzero()[:, 0]
        self._table = table[:, seen]
        self._held = int(held.sum())
        self._near = _Skin(flame, torch.cat([seen, (held & by_eyes).nonzero()[:, 0]]))
        self._still = _Skin(flame, (held & ~by_eyes).nonzero()[:, 0])

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
            on_step: called with the number of the step, counted over both stages, before each.

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
        task = _Task(self, shape, start, loss, settings)
        zeros = torch.zeros_like(start.pose[:, :3])
        place = zeros + zeros.new_tensor([0.0, 0.0, _START_DEPTH])

        begun = task.points(shape, start.expression, zeros)[0]
        (place,), placing = _descend(
            lambda at: loss.placing(task.seen(begun, at)), [place], settings.placing_steps, settings.rate, on_step
        )
        rest = torch.cat([start.expression, zeros, place], dim=1)
        later = (lambda step: on_step(step + settings.placing_steps)) if on_step else None
        (shape, rest), fitting = _descend(
            task.fitting, [shape, rest], settings.fitting_steps, settings.rate, later, lambda _, rest: _turn_back(rest)
        )
        expression, eye, place = rest.split(_REST, dim=1)
        head = FlameParameters(
            shape.expand(len(start), -1).clone(), expression, start.pose, torch.cat([eye, eye], dim=1)
        )
        return LandmarkFitResult(head, place, (placing, fitting))


_REST = [NUM_EXPRESSION, 3, 3]  # expression, eyes and translation are optimised as one tensor


class _Skin:
    """Some vertices of a head whose neck is straight, as functions of shape, expression, jaw and eyes.

    In terms of the model: v = x + sum_j w_j (R_j - I)(x - J_j) over jaw and eyes, x = template + basis c + correctives,
    J linear in the coefficients c.
    """

    def __init__(self, flame: FLAME, vertices: Int[Tensor, " some"]) -> None:
        joints = [JAW, LEFT_EYE, RIGHT_EYE]
        regressor = flame.J_regressor[joints].float()
        basis = flame.shapedirs.float()
        self.count = len(vertices)
        moved = torch.cat([basis[vertices], torch.einsum("jv,vcs->jcs", regressor, basis)])
        self.basis = moved.flatten(0, 1).T.contiguous()
        self.template = torch.cat([flame.v_template[vertices].float(), regressor @ flame.v_template.float()]).flatten()
        correctives = flame.posedirs.float().unflatten(1, (-1, 3))[:, vertices].flatten(1)
        _, jaw, left, right = correctives.split(9)
        self.jaw_correctives, self.eye_correctives = jaw, left + right
        self.weights = flame.lbs_weights[vertices].float()[:, joints]

    def rest(self, coefficients: Float[Tensor, "batch 400"]) -> Float[Tensor, "batch some_and_joints 3"]:
        """Vertices, then jaw and eye joints, before anything turns."""
        return torch.addmm(self.template, coefficients, self.basis).unflatten(1, (-1, 3))

    def posed(
        self, rest: Tensor, jaw: Float[Tensor, "batch 3 3"], eyes: Float[Tensor, "batch 3 3"]
    ) -> Float[Tensor, "batch some 3"]:
        """Vertices turned by R - I of jaw and eyes; also of differences of two heads, but for the correctives."""
        vertices, joints = rest[:, : self.count], rest[:, self.count :]
        by_jaw = self.weights[:, :1] * (vertices - joints[:, :1])
        by_eyes = self.weights[:, 1:].sum(1, keepdim=True) * vertices - self.weights[:, 1:] @ joints[:, 1:]
        return vertices + by_jaw @ jaw.mT + by_eyes @ eyes.mT


class _Task:
    """The losses of one batch of faces."""

    def __init__(
        self, fit: LandmarkFit, shape: Tensor, start: FlameParameters, loss: LandmarkLoss, settings: FitSettings
    ) -> None:
        self.loss, self.settings, self.batch = loss, settings, len(start)
        self.near, self.table, self.start = fit._near, fit._table, start
        self.shape = shape
        self.jaw = _turn(start.pose[:, 3:])
        self.turn = rotation_matrix(start.pose[:, :3]).mT
        self.origin = torch.cat([shape.expand(self.batch, -1), start.expression], dim=1)
        self.rest = self.near.rest(self.origin)
        self.per_vertex = settings.surface / (3 * fit._held * self.batch)
        self.gram = self._quadratic(fit._still)

    def _quadratic(self, still: _Skin) -> Float[Tensor, "batch 400 400"]:
        """Sum over vertices that the eyes do not move of the squared offset, as a form of the coefficients."""
        directions = still.basis.unflatten(1, (-1, 3))
        forms = []
        for jaw in self.jaw:
            moved = still.posed(directions, jaw[None], torch.zeros_like(jaw)[None]).flatten(1)
            forms.append(moved @ moved.T)
        return torch.stack(forms)

    def points(
        self, shape: Tensor, expression: Tensor, eye: Float[Tensor, "batch 3"]
    ) -> tuple[Float[Tensor, "batch 70 3"], Tensor]:
        """Landmarks of the turned head, and the mean square offset of vertices that the eyes move, times its weight."""
        near, eyes = self.near, _turn(eye)
        coefficients = torch.cat([shape.expand(self.batch, -1), expression], dim=1)
        features = eyes.detach().flatten(1)
        offsets = (features @ near.eye_correctives + self.jaw.flatten(1) @ near.jaw_correctives).unflatten(1, (-1, 3))
        offsets = torch.nn.functional.pad(offsets, (0, 0, 0, 3))
        vertices = near.posed(near.rest(coefficients) + offsets, self.jaw, eyes)
        seen = self.table.shape[1]
        with torch.no_grad():
            before = near.posed(self.rest + offsets, self.jaw, eyes)
        moved = (vertices[:, seen:] - before[:, seen:]).square().sum()
        return (self.table @ vertices[:, :seen]) @ self.turn, moved

    def seen(self, points: Float[Tensor, "batch 70 3"], place: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 70 2"]:
        """Pixels, y up, of points of heads that are in a place."""
        x = points + place[:, None]
        return x[..., :2] / x[..., 2:] * (-FOCAL * IMAGE_SIZE) + IMAGE_SIZE / 2

    def fitting(self, shape: Tensor, rest: Tensor) -> Float[Tensor, ""]:
        """The loss of stage 2."""
        expression, eye, place = rest.split(_REST, dim=1)
        points, moved = self.points(shape, expression, eye)
        change = torch.cat([(shape - self.shape).expand(self.batch, -1), expression - self.start.expression], dim=1)
        # Half of the gradient would cost another pass over the form, which is symmetric.
        slope = (self.gram @ change.detach()[..., None])[..., 0]
        moved = moved + 2 * (slope * change).sum() - (slope * change.detach()).sum()
        sizes = [change[:, :NUM_SHAPE].abs().sum(), change[:, NUM_SHAPE:].abs().sum(), eye.abs().sum()]
        weights = self.settings.shape, self.settings.expression, self.settings.gaze
        absolute = sum(weight * size for weight, size in zip(weights, sizes, strict=True))
        return self.loss.fitting(self.seen(points, place)) + self.per_vertex * moved + absolute / self.batch


def _turn(axis_angle: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    return rotation_matrix(axis_angle) - torch.eye(3).to(axis_angle)


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
