"""What building a wheel compiles: with a compiler and without one, asked and not asked."""

import ast
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hatchling.bridge.app import Application

from tests.failures import Failures, same

PROJECT = Path(__file__).parent.parent.parent
CYTHON = "def answer():\n    return 42\n"


def hook_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", PROJECT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDING = hook_module()


def build(root: Path, target: str = "wheel", version: str = "standard") -> dict[str, Any]:
    """Run the hook on a tree; return what it tells hatchling."""
    hook = BUILDING.CompilingHook(str(root), {}, None, None, "", target, Application())
    data: dict[str, Any] = {"pure_python": True, "force_include": {}}
    hook.initialize(version, data)
    return data


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package named ``bide`` with one module of Cython, and nobody who asks for anything."""
    package = tmp_path / "tree" / "src" / "bide"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_quick.pyx").write_text(CYTHON)
    monkeypatch.delenv("BIDE_COMPILE", raising=False)
    monkeypatch.delenv("BIDE_PURE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "tree"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CXX", "LDSHARED"):
        monkeypatch.setenv(name, "/nonexistent/cc")


def needs_compiler() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None or not headers.exists():
        pytest.skip("needs a C compiler and Python's headers")


def test_a_build_with_a_compiler_has_the_modules_of_cython(tree: Path) -> None:
    """They are put beside the sources, and the wheel is one of this platform; they can be run."""
    needs_compiler()
    data = build(tree)
    same((data["pure_python"], data["infer_tag"]), (False, True))
    ((built, place),) = data["force_include"].items()
    same(place, f"bide/_quick{sysconfig.get_config_var('EXT_SUFFIX')}")
    shutil.copy(built, tree / "src" / place)
    program = "from bide._quick import answer; print(answer())"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tree / "src", capture_output=True, text=True
    )
    same(run.stdout, "42\n")


def test_a_build_without_a_compiler_is_pure_and_says_so(
    tree: Path, no_compiler: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """So an installation never fails for want of one."""
    same(build(tree), {"pure_python": True, "force_include": {}})
    assert "built as pure Python, without a C compiler" in "".join(capfd.readouterr())
    assert not list(tree.parent.glob("bide-build-*"))


def test_a_build_that_was_asked_to_compile_fails_without_a_compiler(
    tree: Path,
    no_compiler: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A wheel that is to be published must not be pure by accident; it says what to install."""
    monkeypatch.setenv("BIDE_COMPILE", "1")
    monkeypatch.setattr(BUILDING, "of_mypyc", lambda target: [])  # Cython's is reached, and fails
    with pytest.raises(SystemExit):
        build(tree)
    said = "".join(capfd.readouterr())
    assert "BIDE_COMPILE=1 asks for the compiled form" in said
    assert "install a C compiler" in said
    assert not list(tree.parent.glob("bide-build-*"))


def test_what_is_to_be_pure_compiles_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source distribution, an editable install, and what BIDE_PURE=1 asks for."""
    untouched = {"pure_python": True, "force_include": {}}
    monkeypatch.setattr(BUILDING, "compile_all", None)  # a call would fail
    with Failures() as failures:
        with failures.of("sdist"):
            same(build(tree, target="sdist"), untouched)
        with failures.of("editable"):
            same(build(tree, version="editable"), untouched)
        with failures.of("BIDE_PURE"):
            monkeypatch.setenv("BIDE_PURE", "1")
            same(build(tree), untouched)


def test_every_module_that_is_to_be_compiled_is_there() -> None:
    """One that was renamed would else be left out of a wheel, or fail the next release."""
    names = BUILDING.COMPILED.split()
    same(sorted(set(names)), sorted(names))
    with Failures() as failures:
        for name in names:
            with failures.of(name):
                assert (PROJECT / "src" / "bide" / f"{name}.py").exists()


SOURCE = PROJECT / "src" / "bide"
COMPILED = {name.replace("/", ".") for name in BUILDING.COMPILED.split()}
TREES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text())
    for path in SOURCE.rglob("*.py")
}
CLASSES = {
    (module, node.name): node
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
}
"""Those of the package, by their modules and names."""


def within(module: str | None) -> str:
    """Return a module's name within Bide; ``typing`` is not ``bide.typing``."""
    name = str(module)
    return name.removeprefix("bide.") if name.startswith("bide.") else f"not Bide's: {name}"


def bases(module: str, node: ast.ClassDef) -> list[tuple[str, str]]:
    """Return the modules and names of the classes that a class names as its bases."""
    imported = {
        alias.asname or alias.name: (within(node.module), alias.name)
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = []
    for base in map(ast.unparse, node.bases):
        place = imported.get(base, (module, base))
        while place not in CLASSES and place[0] in TREES:  # imported from where it is imported
            again = [
                (within(each.module), alias.name)
                for each in ast.walk(TREES[place[0]])
                if isinstance(each, ast.ImportFrom)
                for alias in each.names
                if (alias.asname or alias.name) == place[1]
            ]
            if not again:
                break
            place = again[0]
        found.append(place)
    return found


def test_a_compiled_class_inherits_compiled_ones_alone() -> None:
    """Mypyc puts its fields where an interpreted one has its dictionary: the collector crashes."""
    with Failures() as failures:
        for (module, name), node in CLASSES.items():
            if module in COMPILED:
                for place, base in bases(module, node):
                    with failures.of(f"{module}: {name}({base})"):
                        assert place in COMPILED or place not in TREES


def test_no_coroutine_is_compiled() -> None:
    """It would throw a cancellation in a way that Python 3.12 and later warn about."""
    with Failures() as failures:
        for module in sorted(COMPILED):
            with failures.of(module):
                kinds = {type(node) for node in ast.walk(TREES[module])}
                assert ast.AsyncFunctionDef not in kinds


def fields(node: ast.ClassDef) -> set[str]:
    """Return the names of what objects of a compiled class keep."""
    found = {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and ast.unparse(each).startswith("self."):
            found.update([each.attr] if isinstance(each.ctx, ast.Store) else [])
    return found | said_for_all(node)


def said_for_all(node: ast.ClassDef) -> set[str]:
    """Return the names that a class has a value, a slot or a property for."""
    found = set()
    for each in node.body:
        match each:
            case ast.Assign(targets=[ast.Name(id="__slots__")]):
                found.update(ast.literal_eval(each.value))
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                found.add(name)
            case ast.FunctionDef(name=name, decorator_list=[ast.Name(id="property"), *_]):
                found.add(name)
    return found


def properties(node: ast.ClassDef) -> set[str]:
    """Return the names of a class's properties, which compiled code asks the object for."""
    return {
        each.name
        for each in node.body
        if isinstance(each, ast.FunctionDef) and "property" in map(ast.unparse, each.decorator_list)
    }


def test_an_interpreted_class_sets_what_compiled_code_reads_on_each_object() -> None:
    """Compiled code reads a field of the object: it does not see a class's value or a property."""

    def kept(place: str, name: str) -> set[str]:
        node = CLASSES.get((place, name))
        if node is None:
            return set()
        found = set[str]().union(*(kept(*base) for base in bases(place, node)))
        return (found | fields(node)) - properties(node) if place in COMPILED else found

    with Failures() as failures:
        for (module, name), node in CLASSES.items():
            if module not in COMPILED:
                for base in bases(module, node):
                    with failures.of(f"{module}: {name}({base[1]})"):
                        assert not said_for_all(node) & kept(*base)
