"""Prints a CycloneDX 1.5 bill of materials of the program: sbom.py SECONDS [--no-default-features ...]

SECONDS is the time it is dated with, so that equal sources give equal bytes. With --check FILE it says whether FILE follows the
schema, where the Python package cyclonedx-python-lib with its validator is there (else code 77).
"""
import json
import sys
import uuid
from datetime import datetime, timezone

from packages import checksums, linked


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    kind = "application" if package["name"] == "dualgrain-cli" else "library"
    about = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"], "purl": purl(package)}
    if package["description"]:
        about["description"] = " ".join(package["description"].split())
    if package["license"]:
        # An older spelling of OR.
        about["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = sums.get((package["name"], package["version"]))
    if checksum:
        about["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return about


def bill(seconds, arguments):
    first, packages, needs = linked(arguments)
    sums = checksums()
    refs = {package: purl(about) for package, about in packages.items()}
    body = {
        "components": [component(about, sums) for package, about in packages.items() if package != first],
        "dependencies": [{"ref": refs[package], "dependsOn": sorted({refs[need] for need in needs[package]})} for package in packages],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    time = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return head | {"metadata": {"timestamp": time, "component": component(packages[first], sums)}} | body


def check(file):
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        sys.exit(77)
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(file).read())
    if fault:
        sys.exit(f"{file}: {fault}")


match sys.argv[1:]:
    case ["--check", file]:
        check(file)
    case [seconds, *arguments] if seconds.isdigit():
        print(json.dumps(bill(int(seconds), arguments), indent=1))
    case _:
        sys.exit(__doc__)
