#!/usr/bin/env bash
# Everything that a release gives out, into target/packages (or the folder named): packaging/release.sh [FOLDER]
#
#   dualgrain-VERSION-x86_64-static.tar.gz   a program for the CPU that needs nothing of the system: no GPU, since a static program cannot open a driver
#   dualgrain-VERSION-x86_64-gpu.tar.gz      a program for the CPU and NVIDIA cards, linked with the system's C library (glibc)
#   dualgrain_VERSION_amd64.deb              the second one, with the systemd unit
#   SHA256SUMS                               of all of them
#
# Each archive has the program, its licence, those of what is linked into it, a bill of materials (CycloneDX), man pages and shell completions.
# Equal sources give equal bytes, whatever folder they lie in: paths are replaced, dates are those of the commit.
# Needs Debian or a system like it, Rust, a C compiler and Python 3; nothing is downloaded but crates.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
packages=$(realpath -m "${1:-target/packages}")
# The folder is replaced, so one that no release made is left alone. The default is the script's own, also after a run that was interrupted.
if [ $# -gt 0 ] && [ -e "$packages" ] && [ ! -f "$packages/SHA256SUMS" ]; then
    if [ ! -d "$packages" ] || [ -n "$(ls -A "$packages")" ]; then
        echo "$packages is not empty and has no SHA256SUMS: name a new folder, an empty one, or one of an earlier release" >&2
        exit 2
    fi
fi

target=x86_64-unknown-linux-gnu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Without a repository (an archive of the sources) both may be given.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}
export DUALGRAIN_REVISION=${DUALGRAIN_REVISION:-$(git describe --always --dirty --tags --abbrev=10 2> /dev/null || echo "$version")}
export LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1

cargo_home=${CARGO_HOME:-$HOME/.cargo}
flags="--remap-path-prefix=$root=/dualgrain --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"
# Random numbers by the C library's own function: a static program can not look it up by name, and would need /dev/random.
flags+=' --cfg getrandom_backend="linux_getrandom"'
export CFLAGS="-ffile-prefix-map=$root=/dualgrain -ffile-prefix-map=$cargo_home=/cargo"

# build FEATURES... -- FLAGS...: the program, linked with the flags. Dependencies are compiled once for both: a C library is chosen when a program is linked.
build() {
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS=$flags cargo rustc --locked --profile dist --bin dualgrain \
        --target "$target" --target-dir target/packaging/build "$@" >&2
    echo "target/packaging/build/$target/dist/dualgrain"
}

# fill FOLDER PROGRAM KIND FEATURES...: what an archive holds.
fill() {
    local folder=$1 program=$2 kind=$3
    shift 3
    rm -rf "$folder"
    mkdir -p "$folder/man" "$folder/completions"
    install -m 755 "$program" "$folder/dualgrain"
    cp LICENSE README.md "$folder/"
    python3 packaging/licences.py $kind "$@" > "$folder/THIRD-PARTY-LICENCES.txt"
    python3 packaging/sbom.py "$SOURCE_DATE_EPOCH" "$@" > "$folder/dualgrain.cdx.json"
    "$program" manual --man "$folder/man"
    "$program" completions bash > "$folder/completions/dualgrain.bash"
    "$program" completions zsh > "$folder/completions/_dualgrain"
    "$program" completions fish > "$folder/completions/dualgrain.fish"
}

# pack FOLDER: the folder as an archive with fixed dates, owners and order.
pack() {
    local folder=$1
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw -C "$(dirname "$folder")" \
        -cf - "$(basename "$folder")" | gzip -n -9 > "$packages/$(basename "$folder").tar.gz"
}

rm -rf "$packages"
mkdir -p "$packages"
static=target/packaging/dualgrain-$version-x86_64-static
gpu=target/packaging/dualgrain-$version-x86_64-gpu

program=$(build --no-default-features -- -C target-feature=+crt-static)
fill "$static" "$program" --static --no-default-features
pack "$static"

program=$(build)
fill "$gpu" "$program" ""
pack "$gpu"
packaging/deb.sh "$gpu" "$version" "$packages"

cd "$packages"
sha256sum -- * > SHA256SUMS
ls -l
