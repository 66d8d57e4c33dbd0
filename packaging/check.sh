#!/usr/bin/env bash
# Tries what packaging/release.sh made: packaging/check.sh [FOLDER]
#
# The static program runs quickstart in a root that holds nothing else. The Debian package is unpacked into a root that has the C library and
# nothing else, and runs there. Checksums, sizes, bills of materials and the names that `cargo binstall` will look for are compared.
# Needs the right to change the root. Where the C library cannot be fetched or the validator of bills is absent, that part says SKIPPED.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$(realpath "${1:-target/packages}")
# What the static program may have, in bytes.
most=30000000

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
static=dualgrain-$version-x86_64-static
gpu=dualgrain-$version-x86_64-gpu

(cd "$packages" && sha256sum --quiet --check SHA256SUMS)
tar -xzf "$packages/$static.tar.gz" -C "$work"
tar -xzf "$packages/$gpu.tar.gz" -C "$work"

# Where `cargo binstall` looks is where the release has it.
url=$(sed -n 's/^pkg-url = "\(.*\)"/\1/p' Cargo.toml)
name=${url##*/}
test "${name//\{ version \}/$version}" = "$static.tar.gz" || { echo "binstall looks for $name" >&2; exit 1; }

for folder in "$static" "$gpu"; do
    for file in LICENSE README.md THIRD-PARTY-LICENCES.txt dualgrain.cdx.json man/dualgrain.1 man/dualgrain-quantize.1 completions/dualgrain.bash; do
        test -s "$work/$folder/$file" || { echo "$folder has no $file" >&2; exit 1; }
    done
    # Nothing of the machine it was built on.
    if grep -qaF -e "$PWD/" -e "${CARGO_HOME:-$HOME/.cargo}/" "$work/$folder/dualgrain"; then
        echo "$folder/dualgrain names folders of the machine it was built on" >&2; exit 1
    fi
    code=0; "${DUALGRAIN_CYCLONEDX:-python3}" packaging/sbom.py --check "$work/$folder/dualgrain.cdx.json" || code=$?
    case $code in
        0) ;;
        77) echo "SKIPPED: $folder's bill of materials was not compared with the schema, DUALGRAIN_CYCLONEDX names no Python with cyclonedx-python-lib[json-validation]" ;;
        *) exit 1 ;;
    esac
done

# Alone in a root.
mkdir "$work/empty"
cp "$work/$static/dualgrain" "$work/empty/"
chroot "$work/empty" /dualgrain quickstart > "$work/quickstart.txt"
grep '^perplexity +' "$work/quickstart.txt"
grep -qxF -- "$(grep '^perplexity +' README.md)" "$work/quickstart.txt"
test -s "$work/empty/quickstart/report.html"
size=$(wc -c < "$work/$static/dualgrain")
echo "the static program has $size bytes"
test "$size" -le "$most"

# The Debian package in a root with a C library.
deb=$packages/dualgrain_${version}_amd64.deb
root=$work/root
mkdir "$root"
if ! (cd "$work" && apt-get download -qq libc6 libgcc-s1 > /dev/null 2>&1); then
    echo "SKIPPED: the Debian package was not run, the C library could not be fetched"
    exit
fi
for package in "$work"/*.deb "$deb"; do dpkg-deb -x "$package" "$root"; done
chroot "$root" /usr/bin/dualgrain --version
chroot "$root" /usr/bin/dualgrain doctor > "$work/doctor.txt"
head -n 3 "$work/doctor.txt"
if ldd "$root/usr/bin/dualgrain" | grep -vE 'linux-vdso|libc\.so|libm\.so|libgcc_s|ld-linux|libdl|libpthread|librt'; then
    echo "the package needs a library that it does not name" >&2; exit 1
fi
