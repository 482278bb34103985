"""Parts of a head's skin as functions of its coefficients, for optimisations that look at little of it.

Necks are straight. In terms of the model a vertex is v = x + sum_j w_j (R_j - I)(x - J_j) over jaw and eyes, which turn
alike. At rest, vertices x and joints J are linear in the coefficients and, as far as correctives go, in the entries of
R - I, called features here.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portraitzoo.faces.flame import FLAME, JAW, LEFT_EYE, RIGHT_EYE

FEATURES = 9  # of a joint
_JOINTS = [JAW, LEFT_EYE, RIGHT_EYE]


class Skin:
    """Some vertices, one by one.

    Args:
        flame: the head.
        vertices: which.
    """

    def __init__(self, flame: FLAME, vertices: Int[Tensor, " some"]) -> None:
        regressor, basis = flame.J_regressor[_JOINTS].float(), flame.shapedirs.float()
        moved = torch.cat([basis[vertices], torch.einsum("jv,vcs->jcs", regressor, basis)]).flatten(0, 1).T
        correctives = flame.posedirs.float().unflatten(1, (-1, 3))[:, vertices]
        # The joints, which come after the vertices, have no correctives.
        _, jaw, left, right = torch.nn.functional.pad(correctives, (0, 0, 0, len(_JOINTS))).flatten(1).split(FEATURES)
        self.count, self.jaw_correctives = len(vertices), jaw
        self.basis = torch.cat([moved, left + right])
        self.template = torch.cat([flame.v_template[vertices].float(), regressor @ flame.v_template.float()]).flatten()
        weights = flame.lbs_weights[vertices].float()[:, _JOINTS]
        self.shares = torch.stack([weights[:, 0], weights[:, 1] + weights[:, 2]], dim=1)[..., None]
        by_joint = torch.stack([weights * weights.new_tensor(kept) for kept in ([1, 0, 0], [0, 1, 1])], dim=1)
        self.pivots = by_joint.flatten(0, 1)

    def rest(self, coefficients: Float[Tensor, "batch 400"]) -> Float[Tensor, "batch some_and_joints 3"]:
        """Vertices, then jaw and eye joints, before anything turns."""
        return torch.addmm(self.template, coefficients, self.basis[:-FEATURES]).unflatten(1, (-1, 3))

    def posed(
        self, rest: Float[Tensor, "batch some_and_joints 3"], turns: Float[Tensor, "batch 6 3"]
    ) -> Float[Tensor, "batch some 3"]:
        """Vertices turned by R - I of the jaw and of the eyes (transposed, one above the other).

        Being linear, it also turns the differences of two heads in the same pose.
        """
        vertices, joints = rest[:, : self.count], rest[:, self.count :]
        pivots = (self.pivots @ joints).unflatten(1, (-1, 2))
        arms = torch.addcmul(-pivots, self.shares, vertices[:, :, None])
        return torch.baddbmm(vertices, arms.flatten(2), turns)


class SurfaceForm:
    """The sum of the squared offsets of other vertices by changes of the coefficients, as forms of the changes.

    Of vertices that the eyes do not move: sum |d + Q e|^2 with Q the jaw's R - I, d the offsets at rest and
    e = w (d - d_J) those relative to the jaw joint. Of vertices that turn with one eye as a whole, with R the eyes'
    rotation, s = d - d_J and p = d_J: sum |R s + p|^2 = sum |s|^2 + 2 p R (sum s) + n |p|^2.

    Args:
        flame: the head.
        vertices: any; those that fit neither description are left out.

    Attributes:
        covered: the vertices that fit.
    """

    covered: Bool[Tensor, " vertices"]

    def __init__(self, flame: FLAME, vertices: Bool[Tensor, " vertices"]) -> None:
        weights, basis = flame.lbs_weights.float(), flame.shapedirs.float()
        joints = torch.einsum("jv,vcs->jcs", flame.J_regressor.float(), basis)
        still = vertices & (weights[:, [LEFT_EYE, RIGHT_EYE]] == 0).all(1)
        rest = basis[still].flatten(0, 1)
        self.at_rest = rest.T @ rest
        by_jaw = still & (weights[:, JAW] != 0)
        rest = basis[by_jaw].movedim(1, 0)
        arms = (weights[by_jaw, JAW, None, None] * (basis[by_jaw] - joints[JAW])).movedim(1, 0)
        mixed = rest[:, None].mT @ arms
        self.mixed = (mixed + mixed.mT).flatten(0, 1).flatten(1)
        self.turned = (arms[:, None].mT @ arms).flatten(0, 1).flatten(1)

        self.covered, moments, twists, reaches = still, [], [], []
        for eye in (LEFT_EYE, RIGHT_EYE):
            whole = vertices & (weights[:, eye] == 1) & (weights.abs().sum(1) == 1)
            self.covered = self.covered | whole
            arms, pivot = (basis[whole] - joints[eye]).movedim(1, 0), joints[eye]
            self.at_rest = self.at_rest + (arms.mT @ arms).sum(0) + int(whole.sum()) * pivot.T @ pivot
            reach = self._reach(flame, whole, eye).movedim(1, 0)
            moments.append(torch.cat([pivot, arms.sum(1)]))
            twists.append(arms[[1, 2, 0]].mT @ reach[[2, 0, 1]] - arms[[2, 0, 1]].mT @ reach[[1, 2, 0]])
            reaches.append(reach.sum(1))
        self.moments, self.reaches = torch.cat(moments).T, torch.cat(reaches).T
        self.twists = (twists[0] + twists[1]).movedim(0, 1).flatten(1)

    @staticmethod
    def _reach(flame: FLAME, vertices: Bool[Tensor, " vertices"], eye: int) -> Float[Tensor, "some 3 419"]:
        """From the eye's joint to vertices: factors of coefficients, of 1, and of the features of jaw and eyes."""
        regressor = flame.J_regressor[eye].float()
        basis = flame.shapedirs.float()[vertices] - torch.einsum("v,vcs->cs", regressor, flame.shapedirs.float())
        template = flame.v_template.float()[vertices] - regressor @ flame.v_template.float()
        correctives = flame.posedirs.float().unflatten(1, (-1, 3))[:, vertices].movedim(0, -1)
        _, jaw, left, right = correctives.split(FEATURES, dim=-1)
        return torch.cat([basis, template[..., None], jaw, left + right], dim=-1)

    def of_jaws(self, jaw: Float[Tensor, "batch 3 3"]) -> Float[Tensor, "batch 400 400"]:
        """Symmetric matrices of all of the sum but what depends on the eyes, for jaws turned by R - I (transposed)."""
        changed = jaw.mT.flatten(1) @ self.mixed + (jaw @ jaw.mT).flatten(1) @ self.turned
        return self.at_rest + changed.unflatten(1, self.at_rest.shape)

    def of_eyes(
        self,
        change: Float[Tensor, "batch 400"],
        eyes: Float[Tensor, "batch 3 3"],
        state: Float[Tensor, "batch 419"],
    ) -> Float[Tensor, ""]:
        """The rest of the sum, as a number whose gradients are those of the distance from where the vertices would be
        with the old coefficients and the eyes as they are.

        That place is held fixed, so the gradient by the eyes is not the derivative of the number: turning an eye
        further moves all of it away.

        Args:
            change: of the coefficients.
            eyes: R - I (transposed).
            state: present coefficients, 1, features of jaw and eyes.
        """
        rotation = eyes.detach().mT + torch.eye(3).to(eyes)
        pivot, moved = (change @ self.moments).unflatten(1, (2, 2, 3)).unbind(2)
        value = 2 * (pivot * (moved @ rotation.mT)).sum()
        with torch.no_grad():
            twist = ((change @ self.twists).unflatten(1, (3, -1)) * state[:, None]).sum(2)
            x, y, z = twist.unbind(1)
            zero = torch.zeros_like(x)
            # Only the antisymmetric half of sum s g^T does work on a rotation; its other half cancels.
            half = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], dim=1).unflatten(1, (3, 3)) / 2
            reach = (state @ self.reaches).unflatten(1, (2, 3))
            pull = 2 * (rotation @ half + pivot.mT @ reach)
        work = (eyes.mT * pull).sum()
        return value + work - work.detach()
