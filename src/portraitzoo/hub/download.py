"""From an entry of the index to a local folder of converted weights, fetched at most once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from portraitzoo.errors import CheckpointError, WeightsUnavailableError, ZooError
from portraitzoo.files import replacing, shipped
from portraitzoo.hub.cache import converted_folder, download_folder, entry_lock
from portraitzoo.hub.converting import RECORD, convert_files
from portraitzoo.hub.folders import CONFIG, WEIGHTS, is_model_folder
from portraitzoo.hub.index import Entry, Origin
from portraitzoo.hub.repositories import hub_file
from portraitzoo.hub.transfer import Progress, check, download


def fetch(entry: Entry, *, progress: Progress | None = None) -> Path:
    """The folder of an entry's converted weights (``model.safetensors``, ``config.json`` and the like), or of its data.

    Embedded weights lie in the package. Others are downloaded, checked, converted and kept on first use; several
    processes may ask at once. A file that is damaged, or not the one that the index describes, stays in no cache.

    Args:
        entry: from :func:`portraitzoo.hub.index.get_entry`.
        progress: told while something is downloaded.

    Raises:
        WeightsUnavailableError: if the weights are not on this machine and cannot be had now; the message tells why and
            what to do.
        CheckpointError: if what was downloaded is damaged, or not what the index describes.
        ZooError: if the disk is full or the cache cannot be written.
    """
    if entry.embedded:
        folder = shipped("zoo") / entry.origins[0].filename
        if not is_model_folder(folder):
            raise WeightsUnavailableError(f"the weights of {entry.name} are missing from this installation ({folder})")
        return folder
    if entry.origins[0].format == "data":
        return fetch_file(entry, progress=progress).parent
    if entry.origins[0].format == "portraitzoo":
        return _ready_made(entry.origins[0], progress)
    folder = converted_folder(entry.name)
    if not _is_current(folder, entry):
        with entry_lock(entry.name):
            if not _is_current(folder, entry):
                files = [_obtain(entry, origin, progress) for origin in entry.origins]
                _convert(entry, files, folder)
    return folder


def fetch_file(entry: Entry, *, progress: Progress | None = None) -> Path:
    """The file of an entry that is data, as it was published; downloaded, checked and kept on first use.

    Args:
        entry: from :func:`portraitzoo.hub.index.get_entry`.
        progress: told while it is downloaded.

    Raises:
        WeightsUnavailableError: as :func:`fetch`.
        CheckpointError: as :func:`fetch`.
        ZooError: as :func:`fetch`; or if the entry is no data.
    """
    (origin, *_) = entry.origins
    if origin.format != "data":
        raise ZooError(f"{entry.name} is no file of data but weights, {entry.task}")
    with entry_lock(entry.name):
        return _obtain(entry, origin, progress)


def import_file(entry: Entry, path: str | Path) -> Path:
    """Use a file that the user has instead of downloading it; it gets the same checks as a download.

    Args:
        entry: whose file it is.
        path: the file. For an entry of several files its name tells which one it is; the others are downloaded.

    Returns:
        The folder of converted weights, or of the data, as :func:`fetch`.

    Raises:
        CheckpointError: if it is not the file that the index describes, is damaged, or of another model.
        WeightsUnavailableError: if the entry needs another file that cannot be had now.
        ZooError: if the entry takes no files, or the cache cannot be written.
    """
    path = Path(path)
    wanted = [origin for origin in entry.origins if origin.format != "portraitzoo"]
    if not wanted:
        raise ZooError(f"{entry.name} needs no file: its weights come ready-made from {entry.origins[0].address}")
    named = wanted if len(wanted) == 1 else [origin for origin in wanted if Path(origin.filename).name == path.name]
    if not named:
        raise ZooError(
            f"{entry.name} is made of {' and '.join(entry.expected_files)}: give a file of one of these names"
        )
    (origin,) = named
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    with entry_lock(entry.name):
        place = _place(entry, origin)
        with replacing(place) as temporary:
            shutil.copyfile(path, temporary)
            check(temporary, str(path), size=origin.size, sha256=origin.sha256)
        if origin.format == "data":
            return place.parent
        files = [_obtain(entry, each, None) for each in entry.origins]
        _convert(entry, files, converted_folder(entry.name))
    return converted_folder(entry.name)


def _ready_made(origin: Origin, progress: Progress | None) -> Path:
    repo = origin.repo or ""
    config = hub_file(repo, CONFIG, origin.revision, progress=progress)
    # The folder's name is the commit: both files come from the same one, even if the branch moves on meanwhile.
    commit = config.parent.name
    return hub_file(repo, WEIGHTS, commit, size=origin.size, sha256=origin.sha256, progress=progress).parent


def _obtain(entry: Entry, origin: Origin, progress: Progress | None) -> Path:
    place = _place(entry, origin)
    if place.is_file():
        check(place, str(place), size=origin.size, sha256=origin.sha256)
        return place
    if origin.kind == "hub":
        return hub_file(
            origin.repo or "",
            origin.filename,
            origin.revision,
            size=origin.size,
            sha256=origin.sha256,
            progress=progress,
        )
    if origin.kind == "manual":
        raise WeightsUnavailableError(
            f"{origin.filename} of {entry.name} must be fetched by hand from {origin.address}, then: "
            f"`zoo download {entry.name} --file {origin.filename}`"
        )
    download(origin.address, place, size=origin.size, sha256=origin.sha256, progress=progress)
    return place


def _convert(entry: Entry, files: Sequence[Path], folder: Path) -> None:
    own = download_folder(entry.name)
    try:
        convert_files(entry, files, folder)
    except CheckpointError:
        # Unusable whatever its checksum: keeping it would make every later attempt fail alike.
        for file in files:
            if file.is_relative_to(own):
                file.unlink(missing_ok=True)
        raise
    shutil.rmtree(own, ignore_errors=True)


def _place(entry: Entry, origin: Origin) -> Path:
    return download_folder(entry.name) / Path(origin.filename).name


def _is_current(folder: Path, entry: Entry) -> bool:
    """Whether ``folder`` holds the weights converted from the files that the index describes now."""
    try:
        sources = json.loads((folder / RECORD).read_text(encoding="utf-8"))["sources"]
        used = [str(source["sha256"]) for source in sources]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    pairs = zip(entry.origins, used, strict=False)
    return len(used) == len(entry.origins) and all(digest.startswith(o.sha256 or "") for o, digest in pairs)
