"""What a build of the program is made of, as cargo says: packages that are linked into it, without those that only build or test it."""
import json
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "dualgrain-cli"
TARGET = "x86_64-unknown-linux-gnu"


def metadata(arguments):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET, *arguments]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def linked(arguments):
    """Packages by id, and the ids that each needs, from the program on. `arguments` choose features."""
    data = metadata(arguments)
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    is_macro = lambda package: any("proc-macro" in target["kind"] for target in packages[package]["targets"])
    first = next(package for package, about in packages.items() if about["name"] == PROGRAM)
    found, edge = {}, [first]
    while edge:
        package = edge.pop()
        if package in found:
            continue
        needs = [need for need in nodes[package]["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])]
        found[package] = sorted(need["pkg"] for need in needs if not is_macro(need["pkg"]))
        edge += found[package]
    return first, {package: packages[package] for package in sorted(found)}, found


def checksums():
    """SHA-256 of each package of a registry, by name and version."""
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
