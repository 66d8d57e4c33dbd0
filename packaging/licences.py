"""Prints the licence texts of all that is linked into the program: licences.py [--static] [--no-default-features ...]

Texts are those in the packages' own sources, as cargo has unpacked them. Equal texts stand once, below the packages that have them. With
--static the C library is one of them.
"""
import re
import sys
from collections import defaultdict
from pathlib import Path

from packages import linked

NAME = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.I)
LINE = "=" * 80
# What is linked in and is no package.
RUST = "The standard library of Rust, by its authors, is under the MIT licence or the Apache License 2.0."
GLIBC = "The GNU C Library, by the Free Software Foundation and others, is under the GNU Lesser General Public License 2.1."
# Where Debian keeps it.
LGPL = Path("/usr/share/common-licenses/LGPL-2.1")


def texts(package):
    """Licence files of a package; those of its folder, and one that its manifest names."""
    folder = Path(package["manifest_path"]).parent
    files = {file for file in folder.iterdir() if file.is_file() and NAME.match(file.name)}
    folders = [one for one in folder.iterdir() if one.is_dir() and re.match(r"^licen[cs]es?$", one.name, re.I)]
    files |= {file for one in folders for file in one.iterdir() if file.is_file()}
    if package["license_file"]:
        files.add(folder / package["license_file"])
    return [file.read_text(errors="replace").strip() for file in sorted(files)]


def main():
    is_static = sys.argv[1:2] == ["--static"]
    first, packages, _ = linked(sys.argv[1 + is_static :])
    owners, without = defaultdict(list), []
    for name, package in packages.items():
        if name == first or package["source"] is None:
            continue
        named = f"{package['name']} {package['version']} ({package['license'] or 'licence in its file'})"
        found = texts(package)
        for text in found:
            owners[text].append(named)
        if not found:
            without.append(named)
    print("dualgrain is under the Apache License 2.0. It contains these works of others, under the licences below.")
    print(RUST)
    if is_static:
        print(f"{GLIBC}\n\n{LINE}\n{LGPL.read_text().strip()}")
    for text, names in sorted(owners.items(), key=lambda item: (min(item[1]), item[0])):
        print(f"\n{LINE}\n" + "\n".join(sorted(names)) + f"\n{LINE}\n\n{text}")
    if without:
        print(f"\n{LINE}\nThe packages of these hold no text; the licence is the one that is named.\n{LINE}\n\n" + "\n".join(sorted(without)))


main()
