#!/usr/bin/env bash
# A Debian package of a filled folder of packaging/release.sh: packaging/deb.sh FOLDER VERSION INTO
# Made by dpkg-deb, which every Debian has, so that dates and owners are fixed.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1 version=$2 into=$3
root=target/packaging/deb
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

put() { install -D -m "$1" "$2" "$root/$3"; }
rm -rf "$root"
put 755 "$folder/dualgrain" usr/bin/dualgrain
put 644 LICENSE usr/share/doc/dualgrain/copyright
put 644 "$folder/THIRD-PARTY-LICENCES.txt" usr/share/doc/dualgrain/THIRD-PARTY-LICENCES.txt
put 644 "$folder/dualgrain.cdx.json" usr/share/doc/dualgrain/dualgrain.cdx.json
put 644 README.md usr/share/doc/dualgrain/README.md
put 644 packaging/systemd/serve.conf etc/dualgrain/serve.conf
for page in "$folder"/man/*.1; do put 644 "$page" "usr/share/man/man1/$(basename "$page")"; done
gzip -n -9 "$root"/usr/share/man/man1/*.1
put 644 "$folder/completions/dualgrain.bash" usr/share/bash-completion/completions/dualgrain
put 644 "$folder/completions/_dualgrain" usr/share/zsh/vendor-completions/_dualgrain
put 644 "$folder/completions/dualgrain.fish" usr/share/fish/vendor_completions.d/dualgrain.fish
# The unit names the program where this package puts it.
put 644 packaging/systemd/dualgrain.service usr/lib/systemd/system/dualgrain.service
sed -i 's|/usr/local/bin/dualgrain|/usr/bin/dualgrain|' "$root/usr/lib/systemd/system/dualgrain.service"

# The oldest C library that has every symbol the program asks for.
libc=$(objdump -T "$folder/dualgrain" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
mkdir -p "$root/DEBIAN"
echo /etc/dualgrain/serve.conf > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" << END
Package: dualgrain
Version: $version
Architecture: amd64
Maintainer: The dualgrain project <dualgrain@localhost>
Depends: libc6 (>= ${libc#GLIBC_}), libgcc-s1
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Description: 4-bit weights and 8-bit activations for language models
 dualgrain quantizes a Hugging Face language model to 4-bit weights and 8-bit
 activations, says what that costs in quality, runs it on a CPU or an NVIDIA
 GPU, and serves it behind the interfaces of OpenAI and Anthropic.
END
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$root" "$into/dualgrain_${version}_amd64.deb" > /dev/null
