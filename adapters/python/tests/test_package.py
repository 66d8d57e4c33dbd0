"""What is in the wheel: types, documentation, the lines of the README."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import dualgrain
from dualgrain import _native

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_wheel_says_that_it_is_typed() -> None:
    files = resources.files("dualgrain")
    assert (files / "py.typed").is_file() and (files / "_native.pyi").is_file()
    assert Path(_native.__file__).suffix == ".so" and "abi3" in Path(_native.__file__).name


def test_stubs_name_what_is_there() -> None:
    stub = ast.parse((resources.files("dualgrain") / "_native.pyi").read_text())
    definitions = (ast.FunctionDef, ast.ClassDef)
    named = {node.name: node for node in stub.body if isinstance(node, definitions)}
    public = {name for name in dir(_native) if not name.startswith("_")}
    assert set(named) == public
    for name, node in named.items():
        if isinstance(node, ast.ClassDef):
            methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)} - {"__new__"}
            members = vars(getattr(_native, name))
            assert methods == {member for member in members if not member.startswith("_")}, name
        else:
            arguments = [argument.arg for argument in node.args.args]
            assert arguments == list(inspect.signature(getattr(_native, name)).parameters), name


def test_everything_public_is_documented() -> None:
    assert sorted(dualgrain.__all__) == dualgrain.__all__
    for name in dualgrain.__all__:
        thing = getattr(dualgrain, name)
        assert inspect.getdoc(thing), name
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_the_five_lines_of_the_readme_work(tmp_path: Path) -> None:
    readme = (REPOSITORY / "adapters" / "python" / "README.md").read_text()
    lines = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert lines is not None and len(lines[1].splitlines()) == 5
    (tmp_path / "models").symlink_to(REPOSITORY / "models")
    done = subprocess.run([sys.executable, "-c", lines[1]], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    text, divergence = done.stdout.rstrip("\n").rsplit("\n", 1)
    assert len(text) > 20 and 0 < float(divergence) < 0.2
