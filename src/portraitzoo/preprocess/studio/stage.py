"""The stage: one person, one light, one wall, and the camera that turns them into pictures and exact maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from portraitzoo.faces.anny import HeadModel, Region
from portraitzoo.preprocess.studio.appearance import Appearance, sample_appearance
from portraitzoo.preprocess.studio.hair import HairMesh, HairStyle, grow, sample_style
from portraitzoo.preprocess.studio.identity import Identity, place, sample_identity
from portraitzoo.preprocess.studio.materials import Label, paint
from portraitzoo.preprocess.studio.motion import Performance, perform
from portraitzoo.preprocess.studio.noise import noise, smoothstep, stream
from portraitzoo.preprocess.studio.scenery import BackgroundKind, Light, Wall, sample_light, sample_wall
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.lighting import irradiance, transfer
from portraitzoo.rendering.rasterisation import Fragments, project, rasterise, vertex_normals

_INNER = (Region.UPPER_TEETH, Region.LOWER_TEETH, Region.TONGUE, Region.MOUTH_CAVITY)


@dataclass(frozen=True)
class Subject:
    """One clip before the camera runs; lengths in PV3D's world (face toward +z, y up).

    Attributes:
        index: number of the clip.
        identity: shape parameters.
        appearance: colours.
        style: haircut.
        performance: motion and cameras.
        light: illumination.
        neutral: vertices of the neutral face, in the head model's metres.
        scale: metres to world.
        shift: metres to world.
        reached: share of the light that reaches each vertex past the head's own shadow, by colour.
        hair: shells of hair, None for a bald head.
        hair_light: irradiance at the hair's vertices.
        wall: background.
    """

    index: int
    identity: Identity
    appearance: Appearance
    style: HairStyle
    performance: Performance
    light: Light
    neutral: Float[Tensor, "vertices 3"]
    scale: float
    shift: Float[Tensor, " 3"]
    reached: Float[Tensor, "vertices 3"]
    hair: HairMesh
    hair_light: Float[Tensor, "hairs 3"]
    wall: Wall


@dataclass(frozen=True)
class HeadClip:
    """A rendered clip with everything that is known about it.

    Attributes:
        image: RGB pictures.
        camera: camera of each frame.
        actions: strength in [0, 1] of each facial action, in the order of the head model's labels.
        landmarks_3d: facial points, world coordinates.
        landmarks_2d: the same in units of the image size (0..1, origin at the top left).
        landmark_names: their names.
        parameters: identity, haircut and appearance as plain numbers.
        depth: distance along the camera's z axis of the nearest surface, 0 where there is only wall; None unless asked.
        normals: unit surface normals, world coordinates, 0 on the wall; None unless asked.
        segmentation: class at each pixel's centre (:class:`~portraitzoo.preprocess.studio.materials.Label`); None
            unless asked.
    """

    image: UInt8[Tensor, "time height width 3"]
    camera: Camera
    actions: Float[Tensor, "time actions"]
    landmarks_3d: Float[Tensor, "time landmarks 3"]
    landmarks_2d: Float[Tensor, "time landmarks 2"]
    landmark_names: tuple[str, ...]
    parameters: dict[str, object]
    depth: Float[Tensor, "time height width"] | None = None
    normals: Float[Tensor, "time height width 3"] | None = None
    segmentation: Int[Tensor, "time height width"] | None = None


def prepare(
    head: HeadModel,
    seed: int,
    index: int,
    num_frames: int,
    background: BackgroundKind = "plain",
    person: int | None = None,
    liveliness: float = 1.0,
) -> Subject:
    """Clip ``index`` of the studio's session ``seed``: the same whatever else is rendered.

    It shows the person of clip ``person``, its own if None.
    """
    person = index if person is None else person
    identity = sample_identity(stream(seed, person, "identity"), head)
    look = sample_appearance(stream(seed, person, "appearance"), identity)
    style = sample_style(stream(seed, person, "hair"), identity)
    light = sample_light(stream(seed, index, "light"))
    wall = sample_wall(stream(seed, index, "wall"), background)
    performance = perform(stream(seed, index, "motion"), head.action_labels, num_frames, liveliness)
    neutral = head.neutral(identity.phenotype, identity.local_changes)
    scale, shift = place(neutral, head)
    world = neutral * scale + shift
    hair = grow(style, world, head)
    # Self-shadowing is that of the neutral face: expressions move too little to matter for soft light.
    faces = torch.cat([head.faces, hair.faces[(hair.margin[hair.faces] > 0.02).all(1)] + len(world)])
    together = torch.cat([world, hair.vertices])
    normals = torch.cat(
        [vertex_normals(world[None], head.faces)[0], vertex_normals(hair.vertices[None], hair.faces)[0]]
    )
    arriving = (transfer(together, normals, faces) @ light.environment).clamp(min=0)
    open_sky = irradiance(light.environment, normals)
    reached = (arriving[: len(world)] / open_sky[: len(world)].clamp(min=1e-3)).clamp(0.12, 1.0)
    reached[head.vertices_of(*_INNER)] = 0.6
    return Subject(
        index, identity, look, style, performance, light, neutral, scale, shift, reached, hair,
        0.35 * open_sky[len(world) :] + 0.65 * arriving[len(world) :], wall,
    )  # fmt: skip


def render(
    head: HeadModel, subject: Subject, resolution: int, *, supersampling: int = 2, maps: bool = False
) -> HeadClip:
    """Run the camera.

    Args:
        head: the model that ``subject`` was prepared with.
        subject: who, and what happens.
        resolution: side of the pictures in pixels.
        supersampling: samples along each side of a pixel, averaged in linear light.
        maps: also depth, normals and segmentation, at the pixels' centres.
    """
    performance = subject.performance
    world = head.act(subject.neutral, performance.actions) * subject.scale + subject.shift
    normals = vertex_normals(world, head.faces)
    fine = resolution * supersampling
    wall = subject.wall.picture(fine)
    images, depths, directions, labels = [], [], [], []
    for vertices, normal, frame in zip(world, normals, range(len(world)), strict=True):
        camera = performance.camera[frame : frame + 1]
        jaw = float(performance.actions[frame, head.action_labels.index("jawOpen")])
        picture = _shade(head, subject, vertices, normal, camera, fine, jaw).over(wall)
        linear = picture.view(resolution, supersampling, resolution, supersampling, 3).mean((1, 3))
        images.append(_develop(linear))
        if maps:
            exact = _shade(head, subject, vertices, normal, camera, resolution, jaw)
            depths.append(exact.depth)
            directions.append(exact.normals)
            labels.append(exact.label)
    names = tuple(head.landmarks)
    points = world[:, [head.landmarks[name] for name in names]]
    return HeadClip(
        image=torch.stack(images),
        camera=performance.camera,
        actions=performance.actions,
        landmarks_3d=points,
        landmarks_2d=project(points, performance.camera)[0],
        landmark_names=names,
        parameters={
            "identity": vars(subject.identity),
            "appearance": vars(subject.appearance),
            "hair": vars(subject.style),
            "scale": subject.scale,
        },
        depth=torch.stack(depths) if maps else None,
        normals=torch.stack(directions) if maps else None,
        segmentation=torch.stack(labels) if maps else None,
    )


@dataclass(frozen=True)
class _Layers:
    """One shaded frame before the wall is put behind it."""

    colour: Float[Tensor, "height width 3"]
    opacity: Float[Tensor, "height width"]
    depth: Float[Tensor, "height width"]
    normals: Float[Tensor, "height width 3"]
    label: Int[Tensor, "height width"]

    def over(self, wall: Float[Tensor, "height width 3"]) -> Float[Tensor, "height width 3"]:
        return self.colour + (1 - self.opacity[..., None]) * wall


def _shade(
    head: HeadModel,
    subject: Subject,
    vertices: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    camera: Camera,
    resolution: int,
    jaw: float,
) -> _Layers:
    """One frame: hair first, then the face where hair does not hide it."""
    pixels = resolution * resolution
    skin = rasterise(vertices[None], head.faces, camera, resolution)
    colour, opacity, covered = torch.zeros(pixels, 3), torch.zeros(pixels), torch.zeros(pixels)
    depth, shown = skin.depth[0].flatten().clone(), torch.zeros(pixels, 3)
    label = torch.zeros(pixels, dtype=torch.long)

    hair = _shade_hair(subject, camera, resolution, depth)
    colour[hair.where], covered[hair.where] = hair.colour * hair.alpha[:, None], hair.alpha
    face = skin.face[0].flatten()
    where = ((face >= 0) & (covered < 0.999)).nonzero()[:, 0]
    lit, normal, labels = _shade_skin(head, subject, vertices, normals, camera, skin, where, jaw)
    colour[where] += (1 - covered[where])[:, None] * lit
    opacity = torch.where(face >= 0, 1.0, covered)
    shown[where], label[where] = normal, labels
    solid = hair.where[hair.alpha > 0.5]
    depth[solid] = hair.depth[hair.alpha > 0.5]
    shown[solid] = hair.normal[hair.alpha > 0.5]
    label[solid] = int(Label.HAIR)
    side = (resolution, resolution)
    return _Layers(colour.view(*side, 3), opacity.view(side), depth.view(side), shown.view(*side, 3), label.view(side))


def _shade_skin(
    head: HeadModel,
    subject: Subject,
    vertices: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    camera: Camera,
    skin: Fragments,
    where: Int[Tensor, " n"],
    jaw: float,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"], Int[Tensor, " n"]]:
    """Radiance, normal and class of the head's own surface at the pixels ``where``."""
    light = subject.light
    mask_names = ("lips", "eyelids", "ears")
    masks = [head.masks[name][:, None] for name in mask_names]
    values = _sample(skin, where, head.faces, [head.template, normals, vertices, subject.reached, *masks])
    template, normal, position, reached, soft_masks = values.split([3, 3, 3, 3, len(masks)], dim=-1)
    region = head.regions[skin.face.flatten()[where]]
    surface = paint(template, region, dict(zip(mask_names, soft_masks.unbind(-1), strict=True)), subject.appearance)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    inner = torch.isin(region, torch.tensor([int(r) for r in _INNER]))
    # Light enters the mouth through the lips only: what lies deeper is darker, the more the less it is open.
    entering = smoothstep(0.090, 0.146, template[:, 2]) * (0.35 + min(jaw * 1.6, 0.5))
    reached = torch.where(inner[:, None], entering[:, None], reached)
    diffuse = irradiance(light.environment, normal)
    # Light scattered under the skin softens the terminator, red most.
    soft = irradiance(light.environment, normal * 0.6)
    diffuse = diffuse + torch.tensor([0.45, 0.15, 0.10]) * (soft - diffuse)
    shine = _highlight(light, normal, camera.cam2world[0, :3, 3] - position, surface.sharpness) * surface.gloss
    return surface.albedo * diffuse * reached + shine[:, None] * light.key_colour * reached, normal, surface.label


@dataclass(frozen=True)
class _HairPixels:
    """Hair in front of everything else: flat pixel indices, and what is seen there."""

    where: Int[Tensor, " n"]
    colour: Float[Tensor, "n 3"]
    alpha: Float[Tensor, " n"]
    depth: Float[Tensor, " n"]
    normal: Float[Tensor, "n 3"]


def _shade_hair(subject: Subject, camera: Camera, resolution: int, skin_depth: Float[Tensor, " pixels"]) -> _HairPixels:
    hair, look, style = subject.hair, subject.appearance, subject.style
    fragments = rasterise(hair.vertices[None], hair.faces, camera, resolution, cull_backfaces=False)
    depth = fragments.depth.flatten()
    where = ((depth > 0) & ((skin_depth == 0) | (depth < skin_depth))).nonzero()[:, 0]
    normals = vertex_normals(hair.vertices[None], hair.faces)[0]
    ends = torch.stack([hair.margin, hair.free], dim=-1)
    values = _sample(
        fragments, where, hair.faces,
        [hair.vertices, normals, hair.tangent, subject.hair_light, hair.strand, ends],
    )  # fmt: skip
    position, normal, tangent, lit, strand, margin, free = values.split([3, 3, 3, 3, 2, 1, 1], dim=-1)
    across = strand + style.seed
    if style.curl > 0.05:
        across = across + style.curl * noise(position * 60 + style.seed, 2, 13) * torch.tensor([1.6, 0.5])
    wide, other = noise(across * torch.tensor([0.5, 0.5]), 2, 0).unbind(-1)
    thin = noise(across * torch.tensor([2.2, 0.9]), 1, 2)[:, 0]
    finest = noise(across * torch.tensor([5.5, 1.2]), 1, 3)[:, 0]
    grain = 1 + 0.22 * wide + 0.20 * thin + 0.14 * finest
    alpha = smoothstep(0.0, 0.11, margin[:, 0] + 0.025 * thin + 0.02 * finest) * style.coverage
    # Seen against the wall, hair that lies on the skin has more hair behind it.
    lying = (1 - free[:, 0]) * (skin_depth[where] == 0)
    alpha = torch.maximum(alpha, lying * smoothstep(0.0, 0.02, margin[:, 0]))
    if style.coverage < 1:  # a shaven head's shadow is on the skin only
        alpha = alpha * (1 - lying)
    colour = torch.tensor(look.hair) * (1 + 0.12 * other[:, None]) * lit * grain.clamp(min=0.2)[:, None]
    view = torch.nn.functional.normalize(camera.cam2world[0, :3, 3] - position, dim=-1)
    halfway = torch.nn.functional.normalize(subject.light.key + view, dim=-1)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    # Kajiya and Kay's highlight of a fibre: bright where the halfway vector is square to the strand.
    tilted = torch.nn.functional.normalize(tangent + (0.12 * thin)[:, None] * normal, dim=-1)
    sine = (1 - (tilted * halfway).sum(-1).square()).clamp(min=0).sqrt()
    facing = smoothstep(-0.2, 0.5, (normal * subject.light.key).sum(-1))
    shine = (0.05 * sine**60 + 0.03 * sine**14) * facing * (1 - 0.6 * style.curl)
    tint = 0.4 + 0.6 * torch.tensor(look.hair) / max(look.hair)
    colour = colour + shine[:, None] * subject.light.key_colour * tint * lit.clamp(max=1)
    return _HairPixels(where, colour, alpha, depth[where], normal)


def _sample(
    fragments: Fragments, where: Int[Tensor, " n"], faces: Int[Tensor, "faces 3"], attributes: list[Tensor]
) -> Float[Tensor, "n channels"]:
    """Vertex attributes at chosen pixels (flat indices) of a single picture."""
    corners = faces[fragments.face.flatten()[where]]
    weights = fragments.barycentric.view(-1, 3)[where]
    table = torch.cat(attributes, dim=-1)
    first, second, third = (table.index_select(0, corners[:, corner]) * weights[:, corner, None] for corner in range(3))
    return first + second + third


def _highlight(light: Light, normal: Tensor, toward_eye: Tensor, sharpness: Tensor) -> Tensor:
    """Blinn's highlight of the key lamp with a soft Fresnel rise toward grazing angles."""
    view = torch.nn.functional.normalize(toward_eye, dim=-1)
    halfway = torch.nn.functional.normalize(view + light.key, dim=-1)
    grazing = (1 - (normal * view).sum(-1).clamp(0, 1)) ** 4
    lobe = (normal * halfway).sum(-1).clamp(min=0) ** sharpness
    return lobe * (1 + 1.5 * grazing) * smoothstep(-0.1, 0.3, (normal * light.key).sum(-1))


def _develop(linear: Float[Tensor, "height width 3"]) -> UInt8[Tensor, "height width 3"]:
    """Linear light to sRGB with a shoulder above 0.7 instead of clipping."""
    shoulder = 0.7 + 0.3 * torch.tanh((linear - 0.7) / 0.3)
    linear = torch.where(linear > 0.7, shoulder, linear.clamp(min=0))
    encoded = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().clamp(0, 255).to(torch.uint8)
