"""The direction of imports: rooms of the library know only the rooms below them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "pyrovae"

# From the bottom; a room may import from rooms of a lower rank, and from its own. Rooms of one
# rank do not know each other.
RANK = {
    "files": 0,
    "json_files": 0,
    "starting": 0,
    "text": 0,
    "checking": 0,
    "captured": 0,
    "fused": 0,
    "precision": 0,
    "tensor_files": 0.1,  # on top of files, below all others
    "programs": 0.2,
    "surgery": 0.5,  # below the divergences, which name it
    "data": 1,
    "distributions": 1,
    "networks": 1,
    "reach": 1,
    "objectives": 1,
    "static_step": 1.5,  # between the objectives and svi
    "svi": 2,
    "distributed": 2,
    "priors": 2,
    "guides": 2,
    "likelihoods": 2,
    "evidence": 2,
    "divergences": 2.5,  # tails of draws are judged as weights are
    "training": 3,
    "plots": 3,
    "export": 3,
    "runs": 4,
    "models": 3,
    "inference": 5,
}
PARTS = {"priors", "guides", "likelihoods", "networks", "distributions", "models", "inference"}


def room_of(path):
    if LIBRARY in path.parents:
        first = path.relative_to(LIBRARY).parts[0]
        return first.removesuffix(".py")
    return path.relative_to(ROOT).parts[0]


def imports(path, top_level=False):
    """Absolute dotted names of all that a file imports, also inside functions."""
    package = ["pyrovae", *path.relative_to(LIBRARY).parts[:-1]] if LIBRARY in path.parents else []
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{a.name}" for a in node.names)


FILES = [
    p
    for folder in (LIBRARY, ROOT / "models", ROOT / "inference")
    for p in sorted(folder.rglob("*.py"))
    if p != LIBRARY / "__init__.py"
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downward(path):
    room = room_of(path)
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("models", "inference"), f"{path} imports {name}; use pyrovae.{name}"
        if parts[0] != "pyrovae" or name in ("pyrovae", "pyrovae.__version__"):
            continue
        other = parts[1]
        if other not in RANK:  # `import pyrovae as pv` and names of the top level: for scripts only
            assert room == "inference", f"{path} imports {name} from the top level"
            continue
        # A result's plot() and to_arviz() import what is above them, but only when called.
        if room == "evidence" and other in ("plots", "export"):
            assert name not in set(imports(path, top_level=True)), f"{path} imports {name} when imported"
            continue
        assert other == room or RANK[other] < RANK[room], f"{path} imports {name}: not downward"


@pytest.mark.parametrize("room", ["programs", "objectives", "svi", "evidence", "training"])
def test_hand_written_programs_need_no_parts(room):
    for path in (p for p in FILES if room_of(p) == room):
        for name in imports(path):
            if name.startswith("pyrovae."):
                assert name.split(".")[1] not in PARTS, f"{path} imports {name}"


def test_only_programs_touch_poutine():
    for path in FILES:
        if room_of(path) == "programs":
            continue
        found = [n for n in imports(path) if n.startswith("pyro.poutine")]
        assert not found, f"{path} imports {found}; ask pyrovae.programs"


def test_every_room_has_its_rank():
    assert {room_of(p) for p in FILES} - {"py"} <= set(RANK)
    # The check itself sees relative, absolute and nested imports.
    names = set(imports(LIBRARY / "evidence" / "evidence.py"))
    assert {"pyrovae.programs.inspect_program", "pyrovae.plots.plot_evidence", "torch"} <= names
