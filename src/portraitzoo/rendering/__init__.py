"""Cameras, rays, tri-planes, volume rendering, surfaces and mesh rasterisation."""
