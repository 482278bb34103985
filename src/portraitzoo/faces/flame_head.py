"""FLAME with the tables that a deformation field needs: parts of the mesh, neighbourhoods, a decimated mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from portraitzoo.faces.flame import FLAME
from portraitzoo.faces.flame_arrays import REGION_SIZE, RING_SIZE, FlameArrays

Part = Literal["face", "face_and_eyes", "eyes", "lips", "no_inner_mouth", "small_face", "eyelids"]


@dataclass(frozen=True)
class HeadSizes:
    """How many of everything a :class:`FlameHead` has; the defaults are FLAME's. The lengths of the lists of vertices
    follow from the mask file that a model was set up with.
    """

    vertices: int = 5023
    faces: int = 9976
    head: int = 3931
    left_eyeball: int = 546
    right_eyeball: int = 546
    face: int = 1787
    lips: int = 254
    no_inner_mouth: int = 4936
    small_face: int = 3055
    eyelids: int = 721
    dynamic: int = 528
    coarse_vertices: int = 730
    coarse_faces: int = 1394

    @classmethod
    def of_arrays(cls, arrays: FlameArrays) -> HeadSizes:
        """Sizes of the head of these arrays."""
        lengths = {item.name: len(getattr(arrays, item.name, ())) for item in fields(cls)}
        eyes = lengths["left_eyeball"] + lengths["right_eyeball"]
        return cls(**lengths | {"vertices": len(arrays.v_template), "head": len(arrays.v_template) - eyes})

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> HeadSizes:
        """Sizes of the head of this state dict."""
        lengths = {item.name: len(tensors[item.name]) for item in fields(cls) if item.name in tensors}
        return cls(**lengths, vertices=len(tensors["canonical"]), faces=len(tensors["flame.faces"]))


class FlameHead(nn.Module):
    """FLAME and its tables, all buffers.

    Args:
        sizes: of the mesh and its parts.

    Attributes:
        flame: the parametric model.
        canonical: its canonical head (mean identity, jaw open by 0.3), with the neck joint at the origin.
        head, left_eyeball, right_eyeball, face, lips, no_inner_mouth, small_face, eyelids, dynamic: vertices of parts,
            in the order of the files; see :class:`~portraitzoo.faces.flame_arrays.FlameArrays`.
        rings: each vertex, then its neighbours, padded with V.
        coarse_vertices, coarse_weights, coarse_faces: the decimated mesh.
        coarse_regions: vertices of the full mesh around each face of it, padded with V.
    """

    canonical: Float[Tensor, "vertices 3"]
    head: Int[Tensor, " head"]
    left_eyeball: Int[Tensor, " left"]
    right_eyeball: Int[Tensor, " right"]
    face: Int[Tensor, " face"]
    lips: Int[Tensor, " lips"]
    no_inner_mouth: Int[Tensor, " no_inner_mouth"]
    small_face: Int[Tensor, " small_face"]
    eyelids: Int[Tensor, " eyelids"]
    dynamic: Int[Tensor, " dynamic"]
    rings: Int[Tensor, "vertices 10"]
    coarse_vertices: Int[Tensor, "coarse 3"]
    coarse_weights: Float[Tensor, "coarse 3"]
    coarse_faces: Int[Tensor, "coarse_faces 3"]
    coarse_regions: Int[Tensor, "coarse_faces 50"]

    def __init__(self, sizes: HeadSizes | None = None) -> None:
        super().__init__()
        sizes = sizes or HeadSizes()
        self.flame = FLAME(sizes.vertices, sizes.faces)
        self.register_buffer("canonical", torch.zeros(sizes.vertices, 3))
        self.register_buffer("coarse_weights", torch.zeros(sizes.coarse_vertices, 3))
        lists = {"head", "left_eyeball", "right_eyeball", "face", "lips", "no_inner_mouth", "small_face"}
        tables: dict[str, tuple[int, ...]] = {
            name: (length,) for name, length in asdict(sizes).items() if name in lists | {"eyelids", "dynamic"}
        }
        tables |= {"rings": (sizes.vertices, RING_SIZE), "coarse_vertices": (sizes.coarse_vertices, 3)}
        tables |= {"coarse_faces": (sizes.coarse_faces, 3), "coarse_regions": (sizes.coarse_faces, REGION_SIZE)}
        for name, shape in tables.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))

    @classmethod
    def from_arrays(cls, arrays: FlameArrays) -> FlameHead:
        """The head of FLAME's files, or of a model in their form."""
        head = cls(HeadSizes.of_arrays(arrays))
        head.flame = FLAME.from_arrays(arrays)
        eyes = np.concatenate([arrays.left_eyeball, arrays.right_eyeball])
        head.head.copy_(torch.from_numpy(np.setdiff1d(np.arange(len(arrays.v_template)), eyes)))
        for name, buffer in head.named_buffers(recurse=False):
            if name not in ("canonical", "head"):
                buffer.copy_(torch.from_numpy(np.array(getattr(arrays, name))))
        head.canonical.copy_(head.flame(*head.flame.canonical_parameters())[0])
        return head

    @property
    def eyes(self) -> Int[Tensor, " eyes"]:
        """Vertices of both eyeballs, the left one's first."""
        return torch.cat([self.left_eyeball, self.right_eyeball])

    def part_faces(self, part: Part) -> Int[Tensor, "some 3"]:
        """Faces of the full mesh whose three vertices all belong to a part, in the order of the mesh."""
        inside = torch.zeros(len(self.canonical), dtype=torch.bool, device=self.canonical.device)
        inside[self.face if part == "face_and_eyes" else getattr(self, part)] = True
        if part == "face_and_eyes":
            inside[self.eyes] = True
        return self.flame.faces[inside[self.flame.faces].all(1)]

    def coarse(self, vertices: Float[Tensor, "*batch vertices channels"]) -> Float[Tensor, "*batch coarse channels"]:
        """Vertices (or other attributes) of the decimated mesh from those of the full mesh."""
        return (vertices[..., self.coarse_vertices, :] * self.coarse_weights[..., None]).sum(-2)
