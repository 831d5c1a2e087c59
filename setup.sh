#!/usr/bin/env bash
# Everything from a fresh checkout:
#   ./setup.sh            make the environment env/ and the metadata folders
#   ./setup.sh demo       the same, then a whole study on a simulated cohort
#   ./setup.sh test       the same, then the tests; further words go to pytest
# A second call reuses what is there. PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    say "setup.sh: no Python 3.10 or later found; install one, or set PYTHON=/path/to/python."
    exit 1
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

# Without a GPU: the CPU build of torch where pip's sources have one, else a word about the size.
install_torch() {
    if has_gpu || [ "$(uname -s)" != Linux ] || env/bin/python -c 'import torch' 2>/dev/null; then
        return
    fi
    local cpu
    cpu=$(env/bin/pip index versions torch 2>/dev/null |
        grep -oE '2\.1[0-3]\.[0-9]+\+cpu' | head -n 1 || true)
    if [ -n "$cpu" ]; then
        say "no GPU here: installing torch $cpu"
        env/bin/pip install --quiet "torch==$cpu"
    else
        say "no GPU here, and pip's sources have no CPU build of torch for this Python: the general"
        say "build is coming, about 3 GB with its GPU libraries. (To avoid that, give pip a source of"
        say "CPU builds, e.g. in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS, remove env/ and run again.)"
    fi
}

# install FILE: unless this very file was installed before
install() {
    local stamp
    stamp="env/.installed-$(basename "$(dirname "$1")")-$(cksum <"$1" | tr -d ' ')"
    [ -e "$stamp" ] && return
    say "installing $1 (first time: a minute or more)"
    env/bin/pip install --quiet --requirement "$1" || return
    touch "$stamp"
}

# GPU builds of torch bring Triton; without one, the tests of its kernels need it (200 MB).
install_triton() {
    [ "$(uname -sm)" = "Linux x86_64" ] || return 0
    env/bin/python -c 'import triton' 2>/dev/null && return
    install tests/requirements-triton.txt || say "no Triton here: the tests of the GPU's kernels are skipped"
}

prepare() {
    if [ ! -x env/bin/python ]; then
        local python
        python=$(find_python)
        say "making env/ with $("$python" --version)"
        "$python" -m venv env
    fi
    install_torch
    install ./requirements.txt
    mkdir -p experiments simulated
}

demo() {
    local name
    for name in demo.ini demo_eval.ini; do
        [ -e "$name" ] || cp "docs/examples/$name" "$name"
    done
    env/bin/python run.py -m simulate -n demo
    env/bin/python run.py -m check -n demo >/dev/null
    env/bin/python run.py -m prepare -n demo
    env/bin/python run.py -m study -n demo
}

case "${1:-}" in
    "")
        prepare
        say "ready: source env/bin/activate, then python run.py --help"
        ;;
    demo)
        prepare
        demo
        ;;
    test)
        prepare
        install tests/requirements.txt
        install_triton
        shift
        exec env/bin/python -m pytest "$@"
        ;;
    *)
        say "usage: ./setup.sh [demo | test [pytest options]]"
        exit 2
        ;;
esac
