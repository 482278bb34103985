"""Many processes find what one finds, to the last bit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from evaluation_cases import NETWORKS, ToyModel, install_index, make_clip, make_clips, save_frames, save_videos

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.processes import Processes, launched
from portraitzoo.metrics.report import Report

OPTIONS = {**NETWORKS, "manifold_network": "tiny-image"}


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_index(tmp_path / "index", monkeypatch)


def measure(generated, real=None, **options) -> Report:
    options.setdefault("use_cache", False)
    return evaluate(generated, real, overrides=OPTIONS, features="random", batch_size=2, **options)


def everything(ours: Path, theirs: Path, cache: Path) -> list:
    """Numbers of every kind of measure, and all that the report says of the sides."""
    reports = [
        measure(ours, theirs, metrics=["fvd", "fid", "kid", "precision", "recall"], num_clips=7, workers=1),
        measure(ours, theirs, metrics=["psnr", "l1"]),
        measure(ToyModel(), metrics=["identity", "chamfer", "warping"], num_clips=5),
        measure(ToyModel(), theirs, metrics="fvd", num_clips=9, use_cache=True, cache=cache),
    ]
    told = [report.to_dict() for report in reports]
    shown = [report.generated.previews for report in reports]
    assert all(any(strips) for strips in shown)
    for content in told:
        for free in ("seconds", "created", "processes", "versions"):
            del content[free]
    for content in told:
        for result in content["results"]:
            result.pop("extremes", None)  # only the process that writes the report has their pictures
    return json.loads(json.dumps(told, default=str))


def worker(rank: int, world: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        found = everything(folder / "a", folder / "b", folder / "cache")
        (folder / f"{rank}.json").write_text(json.dumps(found))
        try:
            measure(folder / "a", folder / "b", strict=True)
        except MediaError as error:
            (folder / f"{rank}.error").write_text(str(error))
    finally:
        dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path):
    save_frames(tmp_path / "a", [*make_clips(8), make_clip(8, height=30)])
    save_frames(tmp_path / "b", [*make_clips(8, first=50), make_clip(58, height=30)])
    next((tmp_path / "a" / "clip_02").glob("*.png")).write_bytes(b"")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = everything(tmp_path / "a", tmp_path / "b", tmp_path / "cache of one")
    finally:
        torch.set_num_threads(threads)
    mp.spawn(worker, args=(2, tmp_path, free_port()), nprocs=2)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
        assert "clip_02" in (tmp_path / f"{rank}.error").read_text()
    assert [result["generated"] for result in alone[0]["results"]] == [7, 112, 112, 112, 112]
    assert list(alone[0]["generated"]["broken"]) == ["clip_02"]
    assert [result["generated"] for result in alone[3]["results"]] == [9]
    assert not set(alone[0]["generated"]["broken"]) & set(alone[0]["real"]["broken"])
    # The features that two processes kept serve one.
    again = measure(ToyModel(), tmp_path / "b", num_clips=9, metrics="fvd", use_cache=True, cache=tmp_path / "cache")
    assert again.values["fvd"] == alone[3]["results"][0]["value"]


def zoo_eval(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "portraitzoo.cli.main", "eval", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)


@pytest.mark.slow
def test_zoo_eval_on_several_devices_tells_one_answer_once(tmp_path: Path):
    ours, theirs = save_videos(tmp_path / "a", make_clips(7)), save_videos(tmp_path / "b", make_clips(6, first=50))
    common = (
        ours,
        "--data",
        theirs,
        "--features",
        "random",
        "--overrides",
        json.dumps(OPTIONS),
        "--metrics",
        "fvd,fid",
    )
    common += ("--no-use-cache", "--batch-size", 2, "--device", "cpu", "--json")
    alone, together = (json.loads(zoo_eval(*common, "--devices", n).stdout) for n in (1, 2))
    assert together["results"] == alone["results"]
    assert (alone["processes"], together["processes"]) == (1, 2)
    failed = zoo_eval(*common, "--devices", 2, "--clips", 0)
    assert failed.returncode == 1
    assert failed.stderr.count("clips must be at least 1") == 1
    assert "Traceback" not in failed.stderr


def test_impossible_numbers_of_devices_are_refused():
    for devices, nodes in ((0, 1), (1, -1)):
        with pytest.raises(ZooError, match="1 or more devices"), launched(devices, nodes):
            pass
    with launched() as device:
        assert device is None
    assert Processes.current() == Processes(0, 1)
