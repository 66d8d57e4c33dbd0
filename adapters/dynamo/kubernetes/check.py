"""Checks manifests against a CustomResourceDefinition: check.py CRD.yaml MANIFEST.yaml...

Stricter than a cluster, which drops a field that it does not know: such a field is a fault here. Checked are names, types, required
fields, enumerations, patterns, bounds, keys that must be unique, that nothing is said twice, and of a pod what no schema says: that
each mount has its volume and that a container `main` has an image and a command or a type whose command the operator knows.
Then each manifest is spoilt in several ways, and each spoilt copy must be refused. Rules in CEL are counted, not evaluated.

Needs PyYAML. The definition is Dynamo's (deploy/operator/config/crd/bases/nvidia.com_dynamographdeployments.yaml) and is not kept here.
"""
import copy
import re
import sys

import yaml

INT_OR_STRING = "x-kubernetes-int-or-string"
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
BOUNDS = [
    ("minimum", lambda value, bound: value >= bound),
    ("maximum", lambda value, bound: value <= bound),
    ("minLength", lambda value, bound: len(value) >= bound),
    ("maxLength", lambda value, bound: len(value) <= bound),
    ("minItems", lambda value, bound: len(value) >= bound),
    ("maxItems", lambda value, bound: len(value) <= bound),
    ("pattern", lambda value, bound: re.search(bound, value) is not None),
    ("enum", lambda value, bound: value in bound),
]
# What this program understands of a schema; a word beyond it would go unchecked, so it is refused.
KNOWN = {name for name, _ in BOUNDS} | {
    "type", "properties", "required", "items", "additionalProperties", "anyOf", "format", "default", "description", "title", "nullable",
    INT_OR_STRING, "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type", "x-kubernetes-validations", "x-kubernetes-embedded-resource",
}


class Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error."""


def mapping(loader, node):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    if len(keys) != len(set(keys)):
        raise yaml.constructor.ConstructorError(None, None, f"a key stands twice among {keys}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


class Check:
    """Faults of a value by a schema, and how much was looked at."""

    def __init__(self):
        self.faults, self.num_values, self.num_rules = [], 0, 0

    def fault(self, place, words):
        self.faults.append(f"{place or 'the manifest'}: {words}")

    def value(self, value, schema, place=""):
        self.num_values += 1
        self.num_rules += len(schema.get("x-kubernetes-validations", []))
        unknown = sorted(set(schema) - KNOWN)
        if "anyOf" in schema and not schema.get(INT_OR_STRING):
            unknown.append("anyOf")
        if unknown:
            self.fault(place, f"the schema says {', '.join(unknown)}, which this program does not understand")
        if not self.has_type(value, schema, place):
            return
        for name, holds in BOUNDS:
            if name in schema and not (name == "pattern" and not isinstance(value, str)) and not holds(value, schema[name]):
                self.fault(place, f"{value!r} against {name} {schema[name]!r}")
        if isinstance(value, dict):
            self.fields(value, schema, place)
        if isinstance(value, list):
            self.elements(value, schema, place)

    def has_type(self, value, schema, place):
        if schema.get(INT_OR_STRING):
            wanted, is_right = "integer or string", isinstance(value, (int, str)) and not isinstance(value, bool)
        elif "type" in schema:
            wanted = schema["type"]
            is_right = isinstance(value, TYPES[wanted]) and (isinstance(value, bool) == (wanted == "boolean"))
        else:
            return True
        if not is_right:
            self.fault(place, f"{value!r} is no {wanted}")
        return is_right

    def fields(self, value, schema, place):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name in schema.get("required", []):
            if name not in value:
                self.fault(place, f"{name} is missing")
        for name, inner in value.items():
            there = f"{place}.{name}".lstrip(".")
            if name in properties:
                self.value(inner, properties[name], there)
            elif isinstance(others, dict):
                self.value(inner, others, there)
            elif not others and not schema.get("x-kubernetes-preserve-unknown-fields"):
                self.fault(there, "there is no such field")

    def elements(self, value, schema, place):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        seen = []
        for index, inner in enumerate(value):
            self.value(inner, schema.get("items", {}), f"{place}[{index}]")
            if keys and isinstance(inner, dict):
                seen.append(tuple(inner.get(key) for key in keys))
        if len(seen) != len(set(seen)):
            self.fault(place, f"two elements have the same {' and '.join(keys)}")
        if schema.get("x-kubernetes-list-type") == "set" and any(value.count(inner) > 1 for inner in value):
            self.fault(place, "an element stands twice")

    def component(self, component, place):
        """What no schema says of a component's pod."""
        pod = component.get("podTemplate", {}).get("spec", {})
        volumes = {volume.get("name") for volume in pod.get("volumes", [])}
        main = [container for container in pod.get("containers", []) if container.get("name") == "main"]
        if not main or not main[0].get("image"):
            self.fault(place, "no container `main` with an image")
        elif component.get("type") != "frontend" and not main[0].get("command"):
            self.fault(place, "no command: the operator would put a shell in front of the arguments")
        for container in pod.get("containers", []):
            for mount in container.get("volumeMounts", []):
                if mount.get("name") not in volumes:
                    self.fault(place, f"no volume is called {mount.get('name')}")


def checked(manifest, definition):
    """The check of a manifest that the definition is about."""
    check, spec = Check(), definition["spec"]
    group, _, version = str(manifest.get("apiVersion")).partition("/")
    versions = {entry["name"]: entry for entry in spec["versions"] if entry["served"]}
    if (group, manifest.get("kind")) != (spec["group"], spec["names"]["kind"]) or version not in versions:
        check.fault("", f"{manifest.get('apiVersion')} {manifest.get('kind')} is not what the definition is about")
        return check
    if versions[version].get("deprecated"):
        check.fault("", f"{version} is deprecated")
    schema = copy.deepcopy(versions[version]["schema"]["openAPIV3Schema"])
    texts = {"type": "object", "additionalProperties": {"type": "string"}}
    names = {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": texts, "annotations": texts}
    schema["properties"]["metadata"] = {"type": "object", "properties": names, "required": ["name"]}
    check.value(manifest, schema)
    if not check.faults:
        for index, component in enumerate(manifest["spec"].get("components", [])):
            check.component(component, f"spec.components[{index}]")
    return check


def spoilt(manifest):
    """Copies of a manifest, each with one fault, and what it is."""
    last = lambda copied: copied["spec"]["components"][-1]
    pod = lambda copied: last(copied)["podTemplate"]["spec"]
    main = lambda copied: pod(copied)["containers"][0]
    ways = [
        ("a misspelt field of a component", lambda copied: last(copied).update(replica=2)),
        ("a misspelt field of a container", lambda copied: main(copied).update(volumeMount=[])),
        ("a field of an older version", lambda copied: copied["spec"].update(services={})),
        ("a wrong type: a number as text", lambda copied: last(copied).update(replicas="2")),
        ("a wrong type: a variable's value as a number", lambda copied: main(copied)["env"][0].update(value=5)),
        ("a type of component that does not exist", lambda copied: last(copied).update(type="engine")),
        ("a version that is none", lambda copied: last(copied).update(runtimeVersionOverride="1.6")),
        ("a required field left out", lambda copied: last(copied).pop("name")),
        ("two components of one name", lambda copied: copied["spec"]["components"].append(last(copied))),
        ("fewer than no replicas", lambda copied: last(copied).update(replicas=-1)),
        ("a mount without its volume", lambda copied: pod(copied)["volumes"].pop(0)),
        ("no command", lambda copied: main(copied).pop("command")),
        ("another kind", lambda copied: copied.update(kind="DynamoGraphDeploymentRequest")),
    ]
    for name, spoil in ways:
        copied = copy.deepcopy(manifest)
        spoil(copied)
        yield name, copied


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with open(sys.argv[1]) as file:
        definition = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    failed = False
    for name in sys.argv[2:]:
        with open(name) as file:
            manifest = yaml.load(file, Loader)
        check = checked(manifest, definition)
        for fault in check.faults:
            print(f"{name}: {fault}", file=sys.stderr)
        failed |= bool(check.faults)
        if check.faults:
            continue
        copies = [(words, checked(copied, definition).faults) for words, copied in spoilt(manifest)]
        for words, faults in copies:
            print(f"  {words}: {faults[0] if faults else 'NOT REFUSED'}")
            failed |= not faults
        print(
            f"{name}: {manifest['apiVersion']} {manifest['kind']}, {check.num_values} values right,"
            f" {len(copies)} spoilt copies looked at, {check.num_rules} rules in CEL not evaluated"
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
