#!/usr/bin/env bash
# Tests the chat page in a headless Chromium: tests/ui/run.sh [URL | BINARY] [NAME...]
# A binary is started with the bundled model on a free port; a server at a URL must accept requests without a key. Names choose
# tests. Needs Chromium (or CHROMIUM=its path) and Python 3; playwright is installed from PyPI into target/. Without one of them
# nothing is tested: it says SKIPPED and ends with code 77.
set -euo pipefail
target=${1:-}
if [ -f "$target" ]; then target=$(realpath "$target"); fi
cd "$(dirname "$0")/../.."

skip() { echo "SKIPPED: the chat page was not tested, $1"; exit 77; }
for name in chromium chromium-browser google-chrome; do
    CHROMIUM=${CHROMIUM:-$(command -v "$name" || true)}
done
export CHROMIUM PYTHONDONTWRITEBYTECODE=1
[ -x "${CHROMIUM:-}" ] || skip "no Chromium is installed"

home=target/ui-tests
if ! "$home/venv/bin/python" -c 'import playwright' 2> /dev/null; then
    mkdir -p "$home"
    python3 -m venv "$home/venv" || skip "Python cannot make a virtual environment"
    "$home/venv/bin/pip" install --quiet 'playwright>=1.50,<2' || skip "playwright cannot be installed"
fi
exec "$home/venv/bin/python" tests/ui/main.py "${target:-target/release/dualgrain}" "${@:2}"
