#!/usr/bin/env bash
# One verb per chore; `./build.sh help` lists them. Makes .venv on first use and again when setup.cfg changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 ORT_DISABLE_TELEMETRY=1

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# is_python CANDIDATE BELOW: whether that is a Python from 3.11 on whose version is less than the tuple BELOW.
is_python() { "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < ($2))" 2>/dev/null; }

find_python() {
    local candidate below
    if [ -n "${PYTHON:-}" ]; then
        is_python "$PYTHON" "4, 0" || die "PYTHON=$PYTHON is no Python 3.11 or newer; name another, or leave it to be found"
        echo "$PYTHON"
        return
    fi
    for below in "3, 15" "4, 0"; do # first those for which every package that is needed has a wheel
        for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
            if is_python "$candidate" "$below"; then
                echo "$candidate"
                return
            fi
        done
    done
    die "Python 3.11 or newer is needed and was not found as python3 or python3.11 to python3.14; install it with:" \
        "sudo apt-get install python3 python3-venv (or python3.11 python3.11-venv and so on, beside an older python3)," \
        "or name one that lies elsewhere: PYTHON=/folder/python3 ./build.sh $verb"
}

make_venv() { # make_venv FOLDER
    local python package=python3-venv
    python=$(find_python) || exit 1
    case "$python" in python3.*) package=$python-venv ;; esac # Debian's name for one beside python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python has no venv module; install it with: sudo apt-get install $package"
    "$python" -m venv "$1" ||
        die "$python -m venv $1 failed; install what it needs with: sudo apt-get install $package"
}

# What an installation depends on: a second start compares it and installs nothing.
stamp() { echo "$1 $(cat setup.cfg setup.py pyproject.toml protos/generate.py $(find protos/sources -name "*.proto" | sort) | cksum)"; }

is_installed() { # is_installed EXTRAS
    local file=$VENV/.trtserve-$1
    [ -f "$file" ] && [ "$(cat "$file")" = "$(stamp "$1")" ] && [ -d protos/trtserve_protos/_generated ]
}

ensure() { # ensure EXTRAS: .venv with these extras of trtserve, and the protobuf artefacts
    local extras=$1 file=$VENV/.trtserve-$1
    # One of ours whose Python was replaced by a newer system's, or taken away, finds its packages no more.
    if compgen -G "$VENV/.trtserve-*" >/dev/null && ! $VENV/bin/python -c 'import pip' 2>/dev/null; then
        say "$VENV was made by a Python that is another now, or gone; making it again ..."
        rm -rf $VENV
    fi
    if is_installed "$extras" || is_installed dev; then # dev holds all others
        return
    fi
    [ -x $VENV/bin/python ] || make_venv $VENV
    say "Setting up $VENV (trtserve[$extras]), which takes a minute the first time ..."
    # Installing runs setup.py, which generates the protobuf artefacts.
    if ! $VENV/bin/python -m pip install --editable ".[$extras]" >"$VENV/pip.log" 2>&1; then
        tail -n 20 "$VENV/pip.log" >&2
        die "pip could not install trtserve[$extras]; its last lines stand above, all of them in $VENV/pip.log"
    fi
    stamp "$extras" >"$file"
}

generate() { # needs grpcio-tools, which nothing needs at run time
    $VENV/bin/python -c 'import grpc_tools' 2>/dev/null ||
        $VENV/bin/python -m pip install --quiet 'grpcio-tools >= 1.62' || die "pip could not install grpcio-tools"
    $VENV/bin/python protos/generate.py
}

verb_setup() { ensure dev; say "Ready: trtserve, trtserve-build, trtserve-client and trtserve-load in $VENV/bin"; }

verb_protos() { ensure server,image; generate; }

names_models() { # whether arguments or environment say what to serve
    local argument
    for argument in "$@"; do
        case "$argument" in
        --model-repository* | --config* | --scripted* | *.onnx | -h | --help | --version) return 0 ;;
        esac
    done
    [ -n "${TRTSERVE_MODEL_REPOSITORY:-}${TRTSERVE_MODEL:-}${TRTSERVE_SCRIPTED:-}${TRTSERVE_CONFIG:-}" ]
}

verb_serve() {
    ensure server,image
    names_models "$@" || set -- --model-repository examples/models "$@"
    exec $VENV/bin/trtserve "$@"
}

verb_test() { # everything, or one kind
    local kind=all
    case "${1:--}" in
    -*) ;;
    all | unit | conformance | integration | simulation | interop | onnx-backend | soak | gpu) kind=$1; shift ;;
    *) die "test $1 is unknown; known are unit, conformance, integration, simulation, interop, onnx-backend, soak, gpu" ;;
    esac
    ensure dev
    case $kind in
    all) set -- tests --ignore=tests/gpu "$@" ;;
    interop) export REQUIRE_STOCK_CLIENTS=1; set -- tests/interop "$@" ;;
    onnx-backend) set -- tests/onnx_backend "$@" ;;
    *) set -- "tests/$kind" "$@" ;;
    esac
    $VENV/bin/python -m pytest "$@"
}

verb_soak() { # the soak test of the suite, for longer: ten minutes, or so many seconds
    [[ ${1:-600} =~ ^[0-9]+$ && ${1:-600} -ge 60 ]] ||
        die "soak $1 cannot be; 60 seconds or more are wanted: memory is level only after a while"
    ensure dev
    SOAK_SECONDS=${1:-600} $VENV/bin/python -m pytest tests/soak -s "${@:2}"
}

verb_check() {
    ensure dev
    $VENV/bin/ruff check .
    $VENV/bin/ruff format --check .
    $VENV/bin/mypy
    $VENV/bin/lint-imports
}

verb_format() {
    ensure dev
    $VENV/bin/ruff check --fix .
    $VENV/bin/ruff format .
}

verb_matrix() { # the oldest and the newest packages that it promises to work with, and other Pythons
    ensure dev
    $VENV/bin/python -m tests.matrix.run "$@"
}

verb_bench() { ensure dev; $VENV/bin/python -m tests.bench "$@"; }

verb_wheel() {
    ensure dev
    $VENV/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist . && ls dist
}

verb_help() {
    cat <<'TEXT'
usage: ./build.sh VERB [arguments]

  serve [ARGUMENTS]   set up, then start the server; on examples/models unless models are named
  test [KIND] [...]   set up, then run all tests but those for a GPU, or one kind: unit, conformance, integration,
                      simulation, interop, onnx-backend, soak, gpu
  soak [SECONDS]      run the soak test for ten minutes, or so many seconds from 60 on
  check               ruff, mypy (strict), import-linter
  format              let ruff fix and format the code
  setup               make .venv with everything that development needs
  protos              generate the protobuf artefacts again
  matrix [NAME...]    run the tests with the oldest and the newest supported packages, and on newer Pythons
  bench [NAME...]     measure; prints ratios to baselines of the same run; the load is trtserve-load's,
                      or with --grpc-client that of gRPC's client; --write writes docs/benchmarks.*
  wheel               build a wheel into dist/
TEXT
}

verb=${1:-help}
[ $# -gt 0 ] && shift
case "$verb" in
setup | protos | serve | test | soak | check | format | matrix | bench | wheel | help) "verb_$verb" "$@" ;;
-h | --help) verb_help ;;
*) verb_help >&2; die "$verb is unknown" ;;
esac
