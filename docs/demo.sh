#!/bin/sh
# The whole way on synthetic data; `make demo` runs it. Needs the environment of `make install`.
set -eu
PY=.venv/bin/python
step() { printf '\n== %s\n' "$*"; "$@"; }

step $PY -m packer demo
step $PY -m packer lasot --stride 3
step $PY -m shards verify data/shards/lasot
step $PY -m shards show data/shards/lasot --out out/crops.png
step $PY -m loaders show --config spm_alexnet.yaml --samples 0:16 --out out/pairs.png
step .venv/bin/torchrun --nproc-per-node 1 train.py --config spm_alexnet.yaml --steps 12 \
    --out runs/demo --set train.batch_size=8 --set train.log_every=2
step $PY -m tracker track --checkpoint runs/demo/latest.pth --video data/raw/lasot/car/car-3/img \
    --box "$(head -n 1 data/raw/lasot/car/car-3/groundtruth.txt)" --out out/car-3.mp4
step $PY -m tracker eval --checkpoint runs/demo/latest.pth --dataset lasot --split all \
    --root data/raw/lasot --out out/eval
step $PY -m benchmarks loaders --data data/shards --pairs 256 --repeats 1

cat <<'END'

Done. Where everything is:
  data/raw/lasot        demo sequences in LaSOT's own layout
  data/shards/lasot     the packed data set
  out/crops.png         packed crops with their boxes
  out/pairs.png         template/search pairs as training sees them
  out/car-3.mp4         a sequence with the box that the model follows (12 steps teach it nothing)
  out/eval              result files and, in reports/lasot-all, a page with the worst sequences
  runs/demo             checkpoints, metrics.jsonl, TensorBoard events, the resolved configuration
Next: pack a real data set, as README.md shows. Delete the demo first, so that it is not in the way:
  rm -r data/raw/lasot data/shards/lasot runs/demo
END
