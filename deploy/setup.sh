#!/usr/bin/env bash
# Makes a virtual environment with the `brigade` command and everything that its tests and checks need.
#
#   deploy/setup.sh FOLDER      (make setup: FOLDER is .venv)
#
# PYTHON names the interpreter when it should not be searched for. TORCH_INDEX_URL names a package index of CPU builds of torch
# (0.2 GB instead of 3), for a machine without an NVIDIA GPU whose pip would take the CUDA build; PyTorch's own site tells it.
set -euo pipefail

TORCH_SPEC='torch>=2.6,<2.14'
TORCH_INDEX_URL=${TORCH_INDEX_URL-}
venv=${1:?usage: deploy/setup.sh FOLDER}
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.12 python3.11 python3.13; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then echo "$candidate"; return; fi
  done
  fail "needs Python 3.11, 3.12 or 3.13 on PATH (or PYTHON=/path/to/python)"
}

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

install_torch() {
  if "$venv/bin/python" -c 'import torch' 2>/dev/null; then return; fi
  local has_gpu=no
  if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; then has_gpu=yes; fi
  if [[ $has_gpu == no && -n $TORCH_INDEX_URL ]]; then
    install --index-url "$TORCH_INDEX_URL" "$TORCH_SPEC"
  else
    install "$TORCH_SPEC"
  fi
}

if [[ ! -x $venv/bin/python ]]; then
  python=$(find_python)
  echo "setup: making $venv with $("$python" --version)"
  "$python" -m venv "$venv" || fail "$python cannot make a virtual environment; on Debian: apt install python3-venv"
fi
echo "setup: installing (the first time takes minutes)"
install_torch
install --editable '.[redis-server,test,check]'
