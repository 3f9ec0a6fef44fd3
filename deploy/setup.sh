#!/usr/bin/env bash
# Makes a virtual environment with the `brigade` command and everything that its tests and checks need.
#
#   deploy/setup.sh FOLDER      (make setup: FOLDER is .venv)
#
# PYTHON names the interpreter when it should not be searched for. On a machine without an NVIDIA GPU torch comes as its
# CPU build: 0.2 GB instead of 3. TORCH_INDEX_URL names the package index of CPU builds; empty takes pip's own choice.
set -euo pipefail

TORCH_SPEC='torch>=2.6,<2.14'
TORCH_INDEX_URL=${TORCH_INDEX_URL-https://download.pytorch.org/whl/cpu}
venv=${1:?usage: deploy/setup.sh FOLDER}
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && supported "$candidate"; then echo "$candidate"; return; fi
  done
  fail "needs Python 3.11 or 3.12 on PATH (or PYTHON=/path/to/python)"
}

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# The version of torch that pip would take by itself: some machines are set up to get a CPU build anyway.
torch_choice() {
  install --dry-run --no-deps --report - "$TORCH_SPEC" 2>/dev/null | "$venv/bin/python" -c \
    'import json, sys; print(json.load(sys.stdin)["install"][0]["metadata"]["version"])' 2>/dev/null || true
}

install_torch() {
  if "$venv/bin/python" -c 'import torch' 2>/dev/null; then return; fi
  if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; then
    install "$TORCH_SPEC"
  elif [[ -z $TORCH_INDEX_URL || $(torch_choice) == *+cpu ]]; then
    install "$TORCH_SPEC"
  elif ! install --index-url "$TORCH_INDEX_URL" "$TORCH_SPEC"; then
    echo "setup: $TORCH_INDEX_URL does not serve us; taking pip's own choice of torch" >&2
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
