"""The code is laid out as the architecture says: imports go one way, locks live in few places.

Read from the source, so that a module that is imported by nobody is looked at too.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bide
from tests.failures import Failures, same

ROOT = Path(bide.__file__).parent
PROJECT = Path(__file__).parent.parent.parent

# Each layer may import those before it, and of its own only what is in the same package.
LAYERS = [
    ["twins", "compiling"],
    ["native", "errors", "capabilities", "sources", "typing"],
    ["systems"],
    ["forks"],
    ["declarations"],
    ["bounds"],
    ["monitoring"],
    ["settings"],
    ["environment"],
    ["configuration", "keywords", "habits"],
    ["waiting"],
    ["exchange"],
    ["protocols", "executors"],
    ["transports"],
    ["wsgi", "asgi", "applications"],
    ["integrations", "children"],
    ["serving"],
    ["hosts", "promises"],
    ["testing"],
    ["pytest_plugin"],
    ["seeing"],
    ["process"],
    ["starting"],
    ["cli"],
    ["__init__", "__main__"],
]
LAYER = {name: number for number, layer in enumerate(LAYERS) for name in layer}

LONG: dict[str, tuple[int, str]] = {}
"""Modules over 400 lines: how long they may be, and why they are not two."""

VAGUE = {"util", "utils", "helper", "helpers", "common", "core", "base", "misc", "manager", "impl"}


class Module:
    """A module of Bide's source.

    Attributes:
        name: its path below the package, with slashes.
        tree: its syntax.
        text: its source.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)

    @property
    def part(self) -> str:
        """What the architecture calls it: its package below ``bide``, or itself."""
        return self.name.removesuffix(".py").partition("/")[0]

    def imports(self) -> Iterator[str]:
        """Return the dotted names that it imports, wherever in the code."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.name}: import by the full name"
                yield node.module or ""

    def classes(self) -> Iterator[ast.ClassDef]:
        """Return its classes."""
        yield from (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))


MODULES = [Module(path) for path in sorted(ROOT.rglob("*.py"))]


def part_of(dotted: str) -> str | None:
    """Return the part of Bide that an import is of; None for what is not Bide's."""
    package, _, rest = dotted.partition(".")
    if package != "bide":
        return None
    return rest.partition(".")[0] or "__init__"


def test_the_source_was_found() -> None:
    """And a module that has no place in the layers asks for one."""
    assert len(MODULES) > 25
    assert {each.part for each in MODULES} == set(LAYER)


def test_imports_go_one_way() -> None:
    """From the command line down to the errors; siblings meet in what is above them."""
    with Failures() as failures:
        for module in MODULES:
            for dotted in module.imports():
                part = part_of(dotted)
                if part is None or (part == module.part and "/" in module.name):
                    continue
                if part == "__init__":
                    continue  # for the version alone, as the next test sees to
                with failures.of(f"{module.name} imports {dotted}"):
                    assert LAYER[part] < LAYER[module.part]


def test_a_package_imports_nothing_that_the_page_rules_out() -> None:
    """The last column of the table of packages in the architecture's page."""
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == {each.part for each in MODULES if "/" in each.name}
    with Failures() as failures:
        for package, ruled_out in rows:
            names = set(re.findall(r"`(\w+)`", ruled_out))
            with failures.of(package):
                assert names
                assert names <= set(LAYER) | sys.stdlib_module_names | {"httptools"}
            for module in MODULES:
                if module.part == package:
                    tops = {each.partition(".")[0] for each in module.imports()}
                    parts = {part_of(each) for each in module.imports()}
                    with failures.of(module.name):
                        same(names & (tops | parts), set())


def test_nothing_imports_the_public_names_but_for_the_version() -> None:
    """Else everything would import everything."""
    with Failures() as failures:
        for module in MODULES:
            with failures.of(module.name):
                for node in ast.walk(module.tree):
                    if isinstance(node, ast.ImportFrom) and node.module == "bide":
                        same([alias.name for alias in node.names], ["__version__"])
                    if isinstance(node, ast.Import):
                        assert "bide" not in [alias.name for alias in node.names]


def test_protocols_and_streams_know_no_sockets_threads_or_loops() -> None:
    """Bytes in, bytes out: they are tested without any of these."""
    others = {"socket", "select", "selectors", "ssl", "threading", "asyncio", "queue"}
    ours = {
        f"bide.waiting.{each}"
        for each in ("api", "waiter", "loops", "actor", "background", "parking", "thread_pool")
    }
    with Failures() as failures:
        for module in MODULES:
            if module.part in ("protocols", "exchange") and module.name != "exchange/totals.py":
                with failures.of(module.name):
                    imported = set(module.imports())
                    same({each.partition(".")[0] for each in imported} & others, set())
                    same(imported & ours, set())


def locks_of(module: Module) -> list[str]:
    """Return the names of locks and their like that a module speaks of."""
    made = []
    for node in ast.walk(module.tree):
        name = ""
        if isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.ImportFrom) and node.module in ("threading", "multiprocessing"):
            made += [alias.name for alias in node.names]
        if re.fullmatch(r"R?Lock|Condition|(Bounded)?Semaphore|Barrier", name):
            made.append(name)
    return made


def test_locks_live_where_threads_meet() -> None:
    """In the executors, children, the transports, and where waits are; nowhere else is one made."""
    places = {"executors", "transports", "waiting", "exchange", "hosts", "children"}
    with Failures() as failures:
        for module in MODULES:
            if module.part not in places:
                with failures.of(module.name):
                    same(locks_of(module), [])


def test_every_function_that_holds_a_lock_is_named() -> None:
    """To ``holds_lock``: a wait looks for its name among the frames that it is called from."""
    with Failures() as failures:
        for module in MODULES:
            named = {
                ast.unparse(arg).rpartition(".")[2]
                for node in ast.walk(module.tree)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "holds_lock"
                for arg in node.args
            }
            for node in ast.walk(module.tree):
                if not isinstance(node, ast.FunctionDef):
                    continue
                held = [
                    ast.unparse(item.context_expr)
                    for each in ast.walk(node)
                    if isinstance(each, ast.With)
                    for item in each.items
                ]
                if any(re.fullmatch(r"\w+\._?lock", each) for each in held):
                    with failures.of(f"{module.name}: {node.name}"):
                        assert node.name in named


def test_a_module_is_not_too_long() -> None:
    """Over 400 lines it asks to be two, or says why not."""
    with Failures() as failures:
        for module in MODULES:
            limit, reason = LONG.get(module.name, (400, ""))
            with failures.of(module.name):
                assert module.text.count("\n") <= limit
                assert (limit == 400) == (not reason)


def test_only_long_modules_have_an_excuse() -> None:
    """One that has been cut needs it no more."""
    lengths = {each.name: each.text.count("\n") for each in MODULES}
    assert {name for name, length in lengths.items() if length > 400} == set(LONG)


def test_names_say_what_things_are() -> None:
    """No module or class is a helper, a manager, or a base."""
    with Failures() as failures:
        for module in MODULES:
            names = [module.name.removesuffix(".py"), *(each.name for each in module.classes())]
            for name in names:
                words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
                with failures.of(f"{module.name}: {name}"):
                    same(words & VAGUE, set())


def test_every_module_says_what_it_is_for() -> None:
    """In a docstring."""
    with Failures() as failures:
        for module in MODULES:
            with failures.of(module.name):
                assert ast.get_docstring(module.tree)


def test_every_public_name_has_a_docstring_of_its_own() -> None:
    """A contract; constants have theirs beside them."""
    assert bide.__all__ == sorted(bide.__all__)
    with Failures() as failures:
        for name in bide.__all__:
            thing = getattr(bide, name)
            if isinstance(thing, str):
                continue
            with failures.of(f"bide.{name}"):
                assert vars(thing).get("__doc__") or (not isinstance(thing, type) and thing.__doc__)


PUBLIC = next(each for each in MODULES if each.name == "__init__.py")


def names_imported(body: list[ast.stmt]) -> dict[str, str]:
    """Return the names that a body of statements imports from Bide, and their modules."""
    return {
        alias.name: node.module or ""
        for node in body
        if isinstance(node, ast.ImportFrom) and part_of(node.module or "") is not None
        for alias in node.names
    }


def private(name: str) -> bool:
    """Whether a name is its module's, or its class's, own."""
    return name.startswith("_") and not name.startswith("__")


def private_names_used(module: Module) -> Iterator[str]:
    """Return the private names of other modules of Bide that a module uses.

    They are imported, or read from an imported module, or overridden or called in a subclass.
    """
    imported: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and part_of(node.module or "") is not None:
            imported |= {(each.asname or each.name): each.name for each in node.names}
            yield from (each.name for each in node.names if private(each.name))
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Attribute)
            and private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in imported
        ):
            yield f"{node.attr} of {imported[node.value.id]}"
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in imported:
                    own = imported[base.id]
                    theirs = PRIVATE_MEMBERS.get(own, set())
                    if members(node) & theirs:
                        yield f"members of {own}"


def members(kind: ast.ClassDef) -> set[str]:
    """Return the private methods and attributes that a class defines or uses of its own."""
    names = set()
    for node in ast.walk(kind):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {node.attr} if node.value.id == "self" else set()
    return {each for each in names if private(each)}


PRIVATE_MEMBERS: Final = {
    kind.name: members(kind) for module in MODULES for kind in module.classes()
}


def test_no_module_uses_a_private_name_of_another() -> None:
    """What others need has a name for them."""
    found = {f"{each.name}: {name}" for each in MODULES for name in private_names_used(each)}
    assert found == set()


def dependencies(module: Module) -> set[str]:
    """Return the modules of Bide that a module imports, also within a function."""
    unneeded = {
        id(node)
        for block in ast.walk(module.tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(module.tree):
        if id(node) in unneeded:
            continue
        if isinstance(node, ast.ImportFrom):
            package = node.module or ""
            for alias in node.names:
                inner = f"{package}.{alias.name}"
                found.add(inner if inner in DOTTED else package)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(DOTTED)


DOTTED: Final = {
    ".".join(("bide", *Path(each.name).with_suffix("").parts)).removesuffix(".__init__"): each
    for each in MODULES
}


def test_no_module_is_imported_by_what_it_imports() -> None:
    """Not even in a function, which hides it. What type checkers alone see does not count."""
    left = {name: dependencies(module) for name, module in DOTTED.items()}
    while left:
        free = {name for name, needs in left.items() if not needs & set(left)}
        assert free, {name: needs & set(left) for name, needs in left.items()}
        left = {name: needs for name, needs in left.items() if name not in free}


def names_for_type_checkers() -> dict[str, str]:
    """Return the public names that are loaded at first use, and their modules."""
    (block,) = [
        node
        for node in PUBLIC.tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return names_imported(block.body)


def test_the_package_has_the_public_names_and_nothing_else() -> None:
    """What it imports, at once or at first use, is what it offers."""
    now, later = names_imported(PUBLIC.tree.body), names_for_type_checkers()
    assert {"__version__", *now, *later} == set(bide.__all__)
    assert {name: getattr(bide, name).__module__ for name in later} == later


def test_no_module_has_a_public_name() -> None:
    """The import of ``bide.wait`` as a module would put it in the place of the function."""
    assert not {each.part for each in MODULES} & set(bide.__all__)


def test_waiting_loads_nothing_of_the_server() -> None:
    """A library that waits, in a program of any kind, does not pay for a server."""
    script = """
import sys, bide
promised = bide.in_thread(len, "four")
assert bide.wait(promised) == 4
print(*[each for each in sys.modules if each.partition(".")[0] in ("bide", "httptools", "click")])
"""
    loaded = set(output_of(script).split())
    may = {
        "bide",
        "bide.capabilities",
        "bide.compiling",
        "bide.errors",
        "bide.forks",
        "bide._locks",
        "bide.sources",
        "bide.systems",
    }
    unexpected = {each for each in loaded - may if not each.startswith("bide.waiting")}
    assert not unexpected
    assert len(loaded) < 30


def test_the_package_and_the_help_load_neither_the_server_nor_asyncio() -> None:
    """Both are quick: what takes time to load is loaded when it is used."""
    names = 'print(*[each for each in sys.modules if each.startswith(("bide.", "asyncio"))])'
    first = output_of(f"import sys, bide; {names}").split()
    same([each for each in first if each != "bide.sources"], ["bide.errors"])  # for BIDE_PURE=1
    script = f"""
import sys, bide.cli
try:
    bide.cli.main(["--help"])
finally:
    {names}
"""
    loaded = output_of(script).splitlines()[-1].split()
    assert "bide.settings" in loaded
    heavy = ("asyncio", "bide.process", "bide.serving", "bide.transports", "bide.waiting")
    same([each for each in loaded if each.startswith(heavy)], [])


def test_the_servers_names_are_loaded_at_first_use() -> None:
    """By any way to ask for them; and they are listed before."""
    script = """
import bide
assert set(bide.__all__) <= set(dir(bide))
assert bide.Server.__module__ == "bide.serving.server"
from bide import *
assert run.__module__ == "bide.process.worker"
try:
    bide.nothing
except AttributeError as error:
    print(error)
"""
    assert output_of(script) == "module 'bide' has no attribute 'nothing'\n"


def output_of(script: str) -> str:
    """Run a script in an interpreter of its own; return what it prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_each_dependency_is_imported_in_its_place() -> None:
    """Parsing by httptools and h2, waiting by greenlet, the command line by click."""
    with (PROJECT / "pyproject.toml").open("rb") as file:
        declared = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[^\w-]", each)[0] for each in declared}
    places: dict[str, set[str]] = {}
    for module in MODULES:
        for dotted in module.imports():
            top = dotted.partition(".")[0]
            if top == "bide" or top in sys.stdlib_module_names:
                continue
            if top in ("mypy_extensions", "typing_extensions"):  # by type checkers alone
                continue
            # A host's or a framework's own module imports that; who imports the module has it.
            if top in names or module.part not in (
                "hosts",
                "integrations",
                "testing",
                "pytest_plugin",
            ):
                places.setdefault(top, set()).add(module.part)
    assert places == {
        "httptools": {"protocols"},
        "h2": {"protocols"},
        "hpack": {"protocols"},
        "hyperframe": {"protocols"},
        "greenlet": {"waiting", "executors", "hosts", "forks", "children"},
        "click": {"cli", "seeing"},
        "opentelemetry": {"serving"},
        "prometheus_client": {"seeing"},
        "rich": {"seeing"},
        "watchfiles": {"process"},
        "websockets": {"protocols"},
    }
    # The others are extras, imported where they are asked for.
    extras = {
        "h2",
        "hpack",
        "hyperframe",
        "opentelemetry",
        "prometheus_client",
        "rich",
        "watchfiles",
        "websockets",
    }
    assert names == set(places) - extras
