"""The rules of the house, held over the source itself: who may import whom, and what may appear nowhere."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import portraitzoo

ROOT = Path(portraitzoo.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
LONGEST = 600

# Every room may import its own floor's rooms only where listed, and whatever stands below.
FLOOR = {
    "errors": 0,
    "extras": 0,
    "files": 0,
    "layers": 1,
    "media": 1,
    "rendering": 2,
    "faces": 2,
    "hub": 3,
    "metrics": 3,
    "training": 3,
    "methods": 3,
    "preprocess": 4,
    "cli": 5,
}
FAMILY_EXCEPTIONS = {("portrait4d", "genhead")}  # its training data come from a GenHead model
BANNED_CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"}
BANNED_NAMES = {"utils", "common", "helpers", "misc"}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def violations(path: str, source: str) -> list[str]:
    """What the module ``path`` (relative to the package) does that it may not."""
    tree, found = ast.parse(source), []
    parts = Path(path).with_suffix("").parts
    room = parts[0]
    for target in _imports(tree):
        if not target.startswith("portraitzoo."):
            continue
        other = target.split(".")
        if room in FLOOR and other[1] in FLOOR and FLOOR[other[1]] > FLOOR[room]:
            found.append(f"{path} imports {target}, which stands above it")
        is_family = room == "methods" and len(parts) > 2 and other[1] == "methods" and len(other) > 3
        if is_family and other[2] != parts[1] and (parts[1], other[2]) not in FAMILY_EXCEPTIONS:
            found.append(f"{path} imports another family: {target}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if _called(node) in BANNED_CALLS:
            found.append(f"{path}:{node.lineno} calls {_called(node)}")
        for keyword in node.keywords:
            value = getattr(keyword.value, "value", None)
            if (keyword.arg == "weights_only" and value is not True) or (
                keyword.arg == "allow_pickle" and value is not False
            ):
                found.append(f"{path}:{node.lineno} passes {keyword.arg}={ast.unparse(keyword.value)}")
        if _called(node) == "torch.load" and "weights_only" not in {keyword.arg for keyword in node.keywords}:
            found.append(f"{path}:{node.lineno} calls torch.load without weights_only=True")
        if _called(node) in ("np.load", "numpy.load") and "allow_pickle" not in {k.arg for k in node.keywords}:
            found.append(f"{path}:{node.lineno} calls numpy.load without allow_pickle=False")
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_keeps_the_rules(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert violations(_name(path), source) == []
    assert not BANNED_NAMES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    assert len(source.splitlines()) < LONGEST, "a module this long is asking to be two"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    bare = []
    for scope in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
        private_scope = isinstance(scope, ast.ClassDef) and scope.name.startswith("_")
        for node in scope.body:
            is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_definition and not private_scope and not node.name.startswith("_") and not ast.get_docstring(node):
                overloads = {ast.unparse(d) for d in node.decorator_list}
                if not overloads & {"overload", "typing.overload"}:
                    bare.append(node.name)
    assert bare == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("layers/a.py", "from portraitzoo.hub.index import Entry", "stands above"),
        ("methods/a/b.py", "import portraitzoo.cli.main", "stands above"),
        ("methods/a/b.py", "from portraitzoo.methods.other.network import X", "another family"),
        ("hub/a.py", "import pickle\npickle.load(f)", "calls pickle.load"),
        ("hub/a.py", "eval('1')", "calls eval"),
        ("hub/a.py", "torch.load(f, weights_only=False)", "weights_only=False"),
        ("hub/a.py", "torch.load(f)", "without weights_only"),
        ("hub/a.py", "np.load(f, allow_pickle=True)", "allow_pickle=True"),
    ],
)
def test_the_rules_notice_a_breach(path: str, source: str, complaint: str) -> None:
    assert any(complaint in found for found in violations(path, source))


def test_the_public_names_are_all_there() -> None:
    missing = [name for name in portraitzoo.__all__ if not hasattr(portraitzoo, name)]
    assert missing == []
