"""``zoo doctor``: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from portraitzoo import __version__
from portraitzoo.cli.options import parser
from portraitzoo.errors import ZooError

HUB_SECONDS = 2.0
MARKS = {"works": "ok", "missing": "--", "broken": "!!"}


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: what it is about.
        state: ``works``; ``missing`` (optional, and absent); ``broken`` (needed, and not working).
        detail: what was found, in one line.
        remedy: what to do about it, often a command; empty if nothing.
    """

    subject: str
    state: Literal["works", "missing", "broken"]
    detail: str
    remedy: str = ""


def doctor(arguments: list[str]) -> None:
    """Run ``zoo doctor``.

    Raises:
        ZooError: if something needed is broken, after everything has been printed.
    """
    options = parser("doctor", "Examine this machine: what works, and what to install for the rest.")
    options.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    chosen = options.parse_args(arguments)
    if chosen.json:
        findings = list(examine())
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        findings = []
        for finding in examine():
            findings.append(finding)
            print(f"{MARKS[finding.state]}  {finding.subject:<17} {finding.detail}", flush=True)
            if finding.remedy:
                print(f"{'':22}{finding.remedy}")
    broken = [finding.subject for finding in findings if finding.state == "broken"]
    if broken:
        raise ZooError(f"not in order: {', '.join(broken)}; what to do stands above")


def examine() -> Iterator[Finding]:
    """Look at Python, PyTorch, the devices, video coding, the extras, the caches and the Hub, in this order."""
    yield _python()
    yield _torch()
    yield from _devices()
    yield _video()
    yield from _extras()
    yield _cache()
    yield _hub()
    yield from _feature_networks()
    yield _anny()
    yield _flame()


def _python() -> Finding:
    detail = f"{platform.python_version()} ({sys.executable}), portraitzoo {__version__}"
    return Finding("python", "works", detail)


def _torch() -> Finding:
    try:
        import torchvision  # noqa: F401  (its operators fail to register if it was built for another torch)
    except Exception as error:
        remedy = "reinstall both in one go: pip install --upgrade torch torchvision"
        return Finding("torch", "broken", " ".join(str(error).split()), remedy)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision", "lightning"))
    return Finding("torch", "works", ", ".join(versions))


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, bf16 "
        detail += "yes" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
        yield Finding(f"cuda:{index}", "works", detail)
    if torch.backends.mps.is_available():
        yield Finding("mps", "works", "Apple GPU")
    elif not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Finding("gpu", "missing", f"no GPU is usable ({built}); everything runs on the CPU")
    yield Finding("cpu", "works", f"{platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()}")


def _video() -> Finding:
    import av
    import torch

    from portraitzoo.media.video import VideoReader, write_video

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = write_video(Path(folder) / "probe.mp4", torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
            with VideoReader(path) as reader:
                frames = reader.num_frames
    except Exception as error:
        remedy = "install the wheel, which brings the encoder: pip install --force-reinstall --only-binary av av"
        return Finding("video", "broken", f"PyAV {av.__version__} cannot write H.264: {error}", remedy)
    return Finding("video", "works", f"PyAV {av.__version__} wrote and read {frames} frames of H.264")


def _extras() -> Iterator[Finding]:
    metadata = importlib.metadata.metadata("portraitzoo")
    requirements = [Requirement(line) for line in importlib.metadata.requires("portraitzoo") or []]
    for extra in sorted(metadata.get_all("Provides-Extra") or []):
        wanted = [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]
        absent = [requirement.name for requirement in wanted if not _installed(requirement)]
        if absent:
            remedy = f"pip install 'portraitzoo[{extra}]'"
            yield Finding(f"extra {extra}", "missing", f"without {', '.join(absent)}", remedy)
        else:
            yield Finding(f"extra {extra}", "works", ", ".join(requirement.name for requirement in wanted))


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def _cache() -> Finding:
    from portraitzoo.hub.cache import cache_root

    folder = cache_root()
    present = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(present).free / 2**30
    if not os.access(present, os.W_OK):
        return Finding("cache", "broken", f"{folder} is not writable", "set PORTRAITZOO_CACHE to a folder that is")
    return Finding("cache", "works", f"{folder}, {free:.0f} GiB free")


def _hub() -> Finding:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "missing", "offline by choice", "unset HF_HUB_OFFLINE to download weights")
    answers: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=HUB_SECONDS) as response:
                answers.append(f"answers {response.status}")
        except urllib.error.HTTPError as error:
            answers.append(f"answers {error.code}")
        except (OSError, ValueError):
            return

    # Name resolution knows no timeout; a thread that may be left behind does.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS + 0.5)
    if answers:
        return Finding("hub", "works", f"{constants.ENDPOINT} {answers[0]}")
    return Finding("hub", "missing", f"{constants.ENDPOINT} does not answer", "what is in the cache works offline")


def _feature_networks() -> Iterator[Finding]:
    from portraitzoo.hub.cache import converted_folder
    from portraitzoo.hub.folders import is_model_folder
    from portraitzoo.hub.index import list_models

    measuring = [entry for entry in list_models() if entry.task == "features"]
    here = [entry.name for entry in measuring if is_model_folder(converted_folder(entry.name))]
    absent = [entry.name for entry in measuring if entry.name not in here]
    if here:
        yield Finding("feature networks", "works", ", ".join(here))
    if absent:
        remedy = "zoo download NAME (zoo info NAME tells where it comes from), or zoo eval --features random"
        yield Finding("feature networks", "missing", f"not on this machine: {', '.join(absent)}", remedy)


def _anny() -> Finding:
    try:
        from anny.paths import get_anny_cache_path
    except ImportError:
        return Finding("synthetic heads", "missing", "anny is not installed", "pip install 'portraitzoo[synthetic]'")
    folder = get_anny_cache_path()
    built = sorted(Path(folder).glob("v*/*.safetensors")) if folder else []
    if built:
        return Finding("synthetic heads", "works", f"anny {importlib.metadata.version('anny')}, body model in {folder}")
    detail = f"anny {importlib.metadata.version('anny')}; the first use builds its body model in {folder}"
    return Finding("synthetic heads", "works", detail)


def _flame() -> Finding:
    from portraitzoo.hub.flame_files import flame_folder, missing_flame_files

    missing = missing_flame_files()
    if missing:
        detail = "without FLAME's own files; converted checkpoints bring it along, free heads do without it"
        return Finding("flame", "missing", detail, missing)
    return Finding("flame", "works", f"files in {flame_folder()}")
