"""What is public is documented, and says the shapes of the tensors that it takes and gives."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "fvgen"
ROOMS = sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")})
# A shape in brackets ([F, H, W, 3], [..., 3], [N]), or words for a tensor that has none of its own.
SHAPE = re.compile(r"\[[^\]]*([A-Za-z0-9]\b|\.\.\.)[^\]]*\]|\bscalar\b|\bany shape\b|\bshape of\b|\bsame shape\b")
ARRAY = re.compile(r"\b(Tensor|ndarray)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(body: list[ast.stmt], doc: str, prefix: str) -> Iterator[tuple[str, Function, str]]:
    """Name, function and the docstring of the class around it; a private class keeps its methods to itself."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, ast.get_docstring(node) or "", f"{prefix}{node.name}.")
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield prefix + node.name, node, doc


def overrides(node: Function) -> bool:
    """Hooks of PyTorch whose meaning is PyTorch's: a network's ``forward`` is documented by its class."""
    return node.name in ("forward", "backward", "setup_context")


def annotations(node: Function) -> str:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return " ".join(ast.unparse(a) for a in [*(x.annotation for x in arguments), node.returns] if a is not None)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_are_documented_with_the_shapes_of_their_tensors(room: str) -> None:
    place = SOURCE / room
    found = []
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, node, around in public_functions(tree.body, "", ""):
            own = ast.get_docstring(node) or ""
            where = f"{path.relative_to(SOURCE)}:{node.lineno} {name}"
            if not own and not overrides(node):
                found.append(f"{where}: no docstring")
            elif ARRAY.search(annotations(node)) and not SHAPE.search(own + (around if "." in name else "")):
                found.append(f"{where}: no shapes")
    assert not found, "\n" + "\n".join(found)


def test_the_librarys_errors_name_arguments_and_not_flags() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ast.unparse(node) if isinstance(node, ast.Raise) else ""
            flags = re.findall(r"(?<![\w-])--(?!help\b)[a-z][\w-]*", "" if "pip install" in text else text)
            found += [f"{path.relative_to(SOURCE)}:{node.lineno} {flag}" for flag in flags]
    assert not found, "\n" + "\n".join(found)
