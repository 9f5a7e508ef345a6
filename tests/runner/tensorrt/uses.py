"""Every class, attribute, enum member and call of TensorRT in the backend's own source.

The backend keeps to one rule for this: an object of TensorRT is always in a variable, or
in an attribute of self, of the name below, and the module itself is `trt`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dpcompress
from tests.runner.tensorrt.signatures import Use

FOLDER = Path(dpcompress.__file__).parent / "runner" / "tensorrt"
FILES = ("build.py", "engine.py", "options.py", "session.py", "timing_cache.py")
MODULE = ("trt", "_trt")
OWNERS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "tensor": "ITensor",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "fault": "ParserError",
    "runtime": "Runtime",
    "cuda_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
}


def source() -> dict[str, str]:
    return {name: (FOLDER / name).read_text(encoding="utf-8") for name in FILES}


def uses(sources: dict[str, str]) -> set[Use]:
    """All that every version must have."""
    found = {use for text in sources.values() for use in _uses(ast.parse(text))}
    asked = _asked_for(sources)
    return {use for use in found if use.name not in asked}


def optional(sources: dict[str, str]) -> set[str]:
    """Names that the backend asks for before it uses them."""
    names = _asked_for(sources)
    for text in sources.values():
        for node in ast.walk(ast.parse(text)):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]{3,}", value):
                names.add(value)
    return {name for name in names if not name.startswith("DPCOMPRESS_")}


def _asked_for(sources: dict[str, str]) -> set[str]:
    return {
        str(node.args[1].value)
        for text in sources.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr")
        and isinstance(node.args[1], ast.Constant)
    }


def _uses(tree: ast.Module) -> Iterator[Use]:
    called = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = tuple(str(k.arg) for k in node.keywords)
            called[node.func] = (len(node.args), keywords)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        count, keywords = called.get(node, (None, ()))
        owner = _name(node.value)
        if owner in MODULE:
            if count is None:
                yield Use(node.attr)
            else:
                yield Use(node.attr, "__init__", count, keywords)
        elif owner in OWNERS:
            stored = isinstance(node.ctx, ast.Store)
            yield Use(OWNERS[owner], node.attr, count, keywords, stored)
        elif isinstance(node.value, ast.Attribute) and _name(node.value.value) in MODULE:
            yield Use(node.value.attr, node.attr)


def _name(node: ast.expr) -> str | None:
    """`x` and `self.x` → 'x'."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "self" else None
    return None
