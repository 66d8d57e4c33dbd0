#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh virtual environment and runs the tests of the package on it: adapters/python/check.sh [PYTEST OPTIONS]
# Needs Python 3.9 or later; maturin, pytest and numpy come from PyPI into the target folder. Without them nothing is tested: it says SKIPPED
# and ends with code 77. Where lm-evaluation-harness can be fetched too, the adapter for it is tested as well.
set -euo pipefail
cd "$(dirname "$0")"
target=$(cd ../..; realpath -m "${CARGO_TARGET_DIR:-target}")
home=$target/python

skip() { echo "SKIPPED: the Python package was not tested, $1"; exit 77; }
fetch() { "$1/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 1 "${@:2}" > "$home/pip.log" 2>&1; }

mkdir -p "$home"
if ! "$home/build/bin/maturin" --version 2> /dev/null | grep -qx 'maturin 1.16.0'; then
    python3 -m venv "$home/build" 2> /dev/null || skip "Python cannot make a virtual environment"
    fetch "$home/build" maturin==1.16.0 || skip "maturin could not be fetched"
fi
rm -rf "$home/wheels" "$home/fresh"
python3 -m venv "$home/fresh" 2> /dev/null || skip "Python cannot make a virtual environment"
# The last version of each that Python 3.9 has, elsewhere the newest that was tried.
case $("$home/fresh/bin/python" -c 'import sys; print(sys.version_info[:2] >= (3, 11))') in
    True) fetch "$home/fresh" pytest==9.1.1 numpy==2.4.6 || skip "pytest and numpy could not be fetched" ;;
    *) fetch "$home/fresh" pytest==8.4.2 numpy==2.0.2 || skip "pytest and numpy could not be fetched" ;;
esac

CARGO_TARGET_DIR=$target "$home/build/bin/maturin" build --quiet --release --locked --out "$home/wheels"
ls -l "$home/wheels"
"$home/fresh/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps "$home/wheels"/dualgrain-*.whl
# Not in the source folder: what is imported is what was installed.
here=$PWD
cd "$home"
run() { "$1/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" "${@:2}"; }
run "$home/fresh" "$here/tests" --ignore "$here/tests/test_lm_eval.py" "$@"

# The harness brings much with it, so its environment is kept; the package in it is the new one.
if ! "$home/harness/bin/python" -c 'import lm_eval, pytest' 2> /dev/null; then
    { python3 -m venv "$home/harness" && fetch "$home/harness" lm-eval==0.4.13 pytest==9.1.1; } \
        || { echo "lm-evaluation-harness could not be fetched: the adapter for it was not tested"; exit 0; }
fi
"$home/harness/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall "$home/wheels"/dualgrain-*.whl
run "$home/harness" "$here/tests/test_lm_eval.py" "$@"
