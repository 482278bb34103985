"""A PV3D small enough to draw clips in milliseconds."""

from portraitzoo.methods.pv3d.network import PV3DConfig

TOY = PV3DConfig(
    z_dim=8,
    w_dim=8,
    motion_dim=8,
    image_resolution=32,
    plane_resolution=16,
    plane_channels=4,
    channel_base=64,
    channel_max=8,
    motion_resolutions=(4,),
    decoder_width=8,
    super_resolution_input=16,
    super_resolution_channels=(4,),
    depth_samples=6,
    importance_samples=6,
    render_resolution=8,
)
