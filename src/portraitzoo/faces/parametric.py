"""What every parametric head can do, whosever data it is made of.

:class:`~portraitzoo.faces.flame.FLAME` is one, with FLAME's data or with those of the free head
(:func:`~portraitzoo.faces.free_head.load_free_head`): only the meaning of the coefficients differs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class ParametricHead(Protocol):
    """A mesh that numbers move: linear in identity and expression, turned by joints."""

    @property
    def triangles(self) -> Int[Tensor, "faces 3"]:
        """Faces, counter-clockwise seen from outside; the same for all parameters."""

    @property
    def uv(self) -> Float[Tensor, "vertices 2"]:
        """A place in a texture for each vertex, in [0, 1]; v grows upwards."""

    @property
    def identity_basis(self) -> Float[Tensor, "vertices 3 identities"]:
        """Offsets of the vertices for each identity coefficient at 1."""

    @property
    def expression_basis(self) -> Float[Tensor, "vertices 3 expressions"]:
        """Offsets of the vertices for each expression coefficient at 1."""

    def __call__(
        self,
        shape: Float[Tensor, "batch identities"],
        expression: Float[Tensor, "batch expressions"],
        pose: Float[Tensor, "batch 6"],
        eye_pose: Float[Tensor, "batch 6"] | None = None,
    ) -> Float[Tensor, "batch vertices 3"]:
        """Vertices of heads from coefficients and axis-angles of neck and jaw, and of both eyes."""

    def landmarks(self, vertices: Float[Tensor, "batch vertices 3"]) -> Float[Tensor, "batch landmarks 3"]:
        """Facial landmarks of posed heads: 68 in iBUG's layout, then pupils where the head has eyes."""
