"""The rules of the house: who may import whom, what stays light, what stays out."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dpcompress"

# A room may import the rooms in its row and what those may import, and itself.
ARROWS = {
    "version": (),
    "errors": (),
    "progress": (),
    "files": ("errors",),
    "runner": ("errors", "version"),
    "blueprint": ("errors", "files", "progress"),
    "algebra": ("blueprint",),
    "models": ("blueprint",),
    "settings": ("blueprint", "runner"),
    "training": ("models", "settings"),
    "ways": ("blueprint",),
    "onnxio": ("ways", "runner"),
    "tables": ("blueprint", "runner"),
    "solver": ("tables",),
    "graph": ("blueprint", "algebra"),
    "latency": ("tables", "onnxio"),
    "importance": ("solver", "graph", "training"),
    "depthshrinker": ("solver", "graph", "training"),
    "exporters": ("files", "onnxio"),
    "report": ("tables",),
    "pipeline": (
        *("solver", "latency", "importance", "depthshrinker"),
        *("exporters", "models", "report"),
    ),
    "cli": ("pipeline",),
}

# Each is an extra or an engine: one file knows it.
ONE_FILE_EACH = ("onnxruntime", "openvino", "tensorrt", "pycuda", "pynvml", "timm", "ray")

# Packages that one room knows.
ONE_ROOM_EACH = {"onnx": "onnxio", "google": "onnxio"}

HEAVY = ("torch", "torchvision", "accelerate", *ONE_FILE_EACH)
LIGHT = {
    "dpcompress": ("numpy", "pandas", "pydantic", "onnx"),
    "dpcompress.cli.main": ("numpy", "pandas", "onnx", "matplotlib"),
    "dpcompress.runner": ("pandas", "pydantic", "onnx"),
    "dpcompress.settings": ("pandas", "onnx"),
    "dpcompress.blueprint": ("numpy", "pandas", "onnx"),
    "dpcompress.tables": ("onnx",),
    "dpcompress.solver": ("onnx",),
    "dpcompress.ways": ("numpy", "pandas", "onnx"),
    "dpcompress.onnxio": ("onnx",),
    "dpcompress.onnxio.precision": (),
    "dpcompress.onnxio.write": (),
    "dpcompress.latency": (),
    "dpcompress.report": (),
}

BLOCKED = """
import importlib.abc, runpy, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not to be imported here")

sys.meta_path.insert(0, Block())
{code}
"""

SOURCES = sorted(PACKAGE.rglob("*.py"))


def allowed(room: str) -> set[str]:
    rows = {room}
    for other in ARROWS[room]:
        rows |= allowed(other)
    return rows


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, those inside functions too."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            if module == "dpcompress":
                yield from ((node.lineno, f"{module}.{a.name}") for a in node.names)
            else:
                yield node.lineno, module


def run_without(blocked: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCKED.format(blocked=set(blocked), code=code)
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in SOURCES} - {"__init__", "__main__"}
    assert rooms <= ARROWS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("dpcompress.") and name.split(".")[1] not in allowed(room)
    ]
    assert not wrong, f"{room} may import {sorted(allowed(room))}"


def test_the_arrows_have_no_cycle() -> None:
    for room in ARROWS:
        for other in ARROWS[room]:
            assert room not in allowed(other)


@pytest.mark.parametrize("package", ONE_FILE_EACH)
def test_an_optional_package_is_known_to_one_file(package: str) -> None:
    users = [p for p in SOURCES if package in {n.split(".")[0] for _, n in imports(p)}]
    assert len(users) <= 1


@pytest.mark.parametrize("package", ONE_ROOM_EACH)
def test_a_format_is_known_to_one_room(package: str) -> None:
    users = [p for p in SOURCES if package in {n.split(".")[0] for _, n in imports(p)}]
    assert {room_of(path) for path in users} == {ONE_ROOM_EACH[package]}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str) -> None:
    if not list(PACKAGE.parent.glob(module.replace(".", "/") + "*")):
        pytest.skip(f"{module} is not written yet")
    done = run_without(HEAVY + LIGHT[module], f"import {module}")
    assert done.returncode == 0, done.stderr


def test_help_and_version_import_nothing_heavy() -> None:
    for option in ("--help", "--version"):
        code = f"sys.argv = ['dpcompress', {option!r}]\n"
        code += "runpy.run_module('dpcompress', run_name='__main__')"
        done = run_without((*HEAVY, "numpy", "pandas", "onnx", "matplotlib"), code)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_block_of_these_tests_blocks() -> None:
    assert run_without(("numpy",), "import numpy").returncode != 0


@pytest.mark.parametrize(
    "path",
    [
        *PACKAGE.glob("runner/**/*.py"),
        *(PACKAGE / name for name in ("__init__.py", "errors.py", "version.py")),
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_what_is_copied_to_boards_is_valid_on_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom)]
    has_code = any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in tree.body)
    if has_code:  # else annotations like `int | None` fail there at run time
        assert any(n.module == "__future__" for n in future)


def test_torch_load_reads_weights_only() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func) in ("torch.load", "load"):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("weights_only") == "True", path


def test_no_file_names_a_place_on_one_machine() -> None:
    somewhere = re.compile(rb"(?<![\w.~$}/-])/(?:work|opt|home|root|Users)/")
    for path in tracked():
        found = somewhere.search(path.read_bytes()) if path.is_file() else None
        assert found is None, f"{path.relative_to(ROOT)}: {found}"


def test_the_top_level_stays_small() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked()}
    expected = {"dpcompress", "latency_tables", "experiments", "tests", "docs"}
    expected |= {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"}
    expected |= {"CHANGELOG.md", "CONTRIBUTING.md"}
    assert {name for name in top - expected if not name.startswith(".")} == set()


def test_readme_and_ci_run_the_same_tests() -> None:
    command = "pip install -e '.[test]' && pytest"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", "")
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8")


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]
