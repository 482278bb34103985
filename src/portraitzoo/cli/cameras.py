"""Camera files named on the command line."""

from pathlib import Path

from portraitzoo.errors import ZooError
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera


def camera_tracks(path: Path) -> list[Camera]:
    """Camera tracks of a file, or of every ``.json`` of a folder (or of its ``smoothed_camera2world``).

    Raises:
        ZooError: if there is none, or one cannot be read.
    """
    if path.is_file():
        return [load_cameras(path)]
    official = path / "smoothed_camera2world"
    files = sorted((official if official.is_dir() else path).glob("*.json"))
    if not files:
        raise ZooError(f"{path} holds no camera files: give a .json or a folder of them")
    return [load_cameras(file) for file in files]
