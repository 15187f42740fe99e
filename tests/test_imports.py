"""The direction of imports: rooms of the library know only the rooms below them, and no circle runs through them."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "pyrovae": ROOT / "pyrovae",
    "pyrovae.models": ROOT / "models",
    "pyrovae.inference": ROOT / "inference",
}

# From the bottom. A room imports from rooms on lines above its own, and from itself; rooms of one line do not know
# each other.
ORDER = """
starting devices files json_files text checking precision results units
foreign_hdf5
pages
progress seeding
tensor_files programs
data distributions networks
objectives
svi priors guides likelihoods
distributed
plots export
evidence
thermodynamics divergences
runs
training
models
comparing
inference
__main__
"""
RANK = {room: rank for rank, line in enumerate(ORDER.strip().splitlines()) for room in line.split()}
PARTS = {"priors", "guides", "likelihoods", "networks", "distributions", "models", "inference"}


def dotted(path):
    """A file's module, by its absolute name."""
    head, folder = next((h, f) for h, f in reversed(FOLDERS.items()) if f in path.parents)
    inner = path.relative_to(folder).with_suffix("").parts
    return ".".join([head, *(p for p in inner if p != "__init__")])


FILES = {dotted(p): p for f in FOLDERS.values() for p in sorted(f.rglob("*.py"))}
FILES.pop("pyrovae")  # its names resolve on first use


def room(module):
    return module.split(".")[1]


def nodes(tree, types):
    """All nodes of a file; without `types`, not those that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if types or not (isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"):
            yield child
            yield from nodes(child, types)


def imported(module, types=True):
    """Every name that a file imports, also inside of functions, by its absolute name."""
    path = FILES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in nodes(ast.parse(path.read_text()), types):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{a.name}" for a in node.names)


def file_of(name):
    """The file that gives a name: the module itself, or the one that defines or exports it."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


IMPORTS = {module: set(imported(module)) for module in FILES}


def test_imports_go_downward():
    wrong = []
    for module, names in IMPORTS.items():
        for name in sorted(names):
            if name.split(".")[0] in ("models", "inference"):
                wrong.append(f"{module} imports {name}: use pyrovae.{name}")
            if name.split(".")[0] != "pyrovae":
                continue
            if name == "pyrovae" or name.split(".")[1] not in RANK:  # the library as its users see it
                if room(module) != "inference":
                    wrong.append(f"{module} imports {name} from the top level: name the room")
            elif room(name) != room(module) and RANK[room(name)] >= RANK[room(module)]:
                wrong.append(f"{module} imports {name}: {room(name)} is not below {room(module)}")
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files():
    graph = {m: {file_of(n) for n in imported(m, types=False)} - {"", m} for m in FILES}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise AssertionError("a circle of imports: " + " -> ".join(reversed(error.args[1]))) from None


def test_hand_written_programs_need_no_parts():
    rooms = {
        "programs",
        "objectives",
        "svi",
        "evidence",
        "training",
        "thermodynamics",
        "divergences",
        "comparing",
    }
    found = [(m, n) for m in FILES if room(m) in rooms for n in IMPORTS[m] if n.startswith("pyrovae.")]
    assert not [edge for edge in found if room(edge[1]) in PARTS]


def test_only_programs_touch_poutine():
    assert not [
        (m, n) for m in FILES if room(m) != "programs" for n in IMPORTS[m] if n.startswith("pyro.poutine")
    ]


def test_every_room_has_its_rank():
    assert {room(m) for m in FILES} == set(RANK)
    # The check itself sees relative, absolute and nested imports.
    assert {"pyrovae.programs.Measure", "pyrovae.plots.plot_evidence", "torch.Tensor"} <= IMPORTS[
        "pyrovae.evidence.result"
    ]


def test_folders_are_small():
    count = {}
    for path in FILES.values():
        count[path.parent] = count.get(path.parent, 0) + (path.name != "__init__.py")
    assert {str(f.relative_to(ROOT)): n for f, n in count.items() if n > 16} == {}


def test_import_waits_for_nothing():
    code = "import pyrovae, pyrovae.inference.cli, sys; print(sorted({'torch', 'pyro', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_evidence_stays_the_function():
    code = (
        "import pyrovae as pv; import pyrovae.evidence.evidence; from pyrovae import evidence; "
        "assert pv.evidence is evidence and callable(evidence); assert all(hasattr(pv, n) for n in pv.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_in_texts_and_tests_are_public():
    """A room that happened to be imported was an attribute, and none in a fresh process."""
    import pyrovae as pv

    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "tests").rglob("*.py")]
    used = {name for p in texts for name in re.findall(r"\bpv\.([a-z]\w*|[A-Z]\w*)", p.read_text())}
    moved = {name for names in pv._MOVED.values() for name in names.split()}
    assert used - set(pv.__all__) - moved - {"no_such_name"} == set()
