"""The documentation keeps its word: tutorials and examples run, names and options exist, links lead somewhere."""

import contextlib
import functools
import importlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest

import pyrovae as pv

from .test_command_lines import MAINS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [p for folder in ("howto", "lecture") for p in sorted((DOCS / folder).glob("*.md"))]
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
BLOCKS = [
    pytest.param(code, id=f"{p.stem}-{i}")
    for p in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", p.read_text(), re.S))
]


def title(path):
    return str(path.relative_to(DOCS))


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")
def test_tutorials_run_and_their_claims_hold(path, capsys):
    """Each checks what it says by assertions of its own."""
    assert path.read_text().count("assert ") >= 3
    runpy.run_path(str(path), run_name="tutorial")
    assert capsys.readouterr().out


@pytest.mark.parametrize("code", BLOCKS)
def test_examples_run(code):
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("path", [*DOCS.rglob("*.md"), *TUTORIALS], ids=title)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def spans():
    """Code of the pages, between backticks and in blocks, with the page."""
    for path in PAGES:
        text = path.read_text()
        for code in re.findall(r"```\w*\n(.*?)```", text, re.S):
            yield from ((path, line.split("  #")[0]) for line in code.splitlines())
        for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
            yield path, code


def test_names_and_files_exist():
    for path, code in spans():
        for name in re.findall(r"\bpv((?:\.[A-Za-z]\w*)+)", code):
            found = pv
            for part in name.split(".")[1:]:
                if found is pv and part in ("load",):
                    break
                assert hasattr(found, part), f"{path.name}: pv{name}"
                found = getattr(found, part)
        for name in re.findall(r"\bpyrovae(?:\.[a-z_]+)+", code):
            module, _, last = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), last), f"{path.name}: {name}"
        for file in re.findall(r"\b(?:models|pyrovae|inference)/[\w/]+\.py", code):
            assert (ROOT / file).is_file(), f"{path.name}: {file}"


@functools.cache
def options(script):
    """What `--help-all` of a script lists."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        MAINS[script](["--help-all"])
    return set(re.findall(r"--[a-z][\w-]*", out.getvalue()))


def test_commands_exist():
    seen = 0
    for path, code in spans():
        found = re.match(r"(?:pyrovae|python inference/) ?(\w+)(?:\.py)?(?= |$)(.*)", code)
        if not found or (found[1] == "compare" and "--" not in code):
            continue
        assert found[1] in MAINS, f"{path.name}: {code}"
        for option in re.findall(r"--[a-z][\w-]*", found[2]):
            assert option in options(found[1]), f"{path.name}: {code}"
            seen += 1
    assert seen > 20


def test_every_formula_of_the_texts_is_covered():
    rows = re.findall(r"^\| (.+?) \| (\w+) \| (.+) \|$", (DOCS / "lecture/coverage.md").read_text(), re.M)
    rows = [row for row in rows if row[0] != "part"]
    assert len(rows) == 42 and {row[1] for row in rows} == {"yes"}
    assert all("](" in row[2] or "`" in row[2] for row in rows)
    # Each numbered formula has a row of its page, in order.
    for page, numbers in (
        ("lecture", r"L(\d+)(?:[–,] ?L?(\d+))?"),
        ("blog", r"(\d+)(?:[–,] ?(\d+))?(?:, (\d+))?"),
    ):
        text = (DOCS / f"lecture/{page}.md").read_text().split("## Errata")[0]
        held = set()
        for row in re.findall(rf"^\| {numbers} ", text, re.M):
            held |= set(range(int(row[0]), max(int(n) for n in row if n) + 1))
        assert held == set(range(1, {"lecture": 22, "blog": 31}[page] + 1)), page


def test_the_site_has_every_page(monkeypatch):
    pytest.importorskip("latex2mathml")
    pytest.importorskip("jupytext")
    pytest.importorskip("nbconvert")
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    build = importlib.import_module("build")
    try:
        pages = [
            page for section in build.navigation() for page in str(section).split("'") if page.endswith(".md")
        ]
        assert len(pages) == len(set(pages)) > 20
        assert build.place_of("docs/tutorials/families.py") == "tutorials/families.md"
        text = build.with_links("[a](../howto/paper.md#x) [b](https://a.b/c.md)", "docs/lecture/blog.md")
        assert text == "[a](../howto/paper.md#x) [b](https://a.b/c.md)"
        assert build.with_links("[a](docs/ising.md)", "README.md") == "[a](ising.md)"
        made = build.with_mathml("a $x_1$ and `$PATH` and 5 $ or 6 $\n\n    $y$\n")
        assert made.count("<math") == 1 and "`$PATH`" in made and "    $y$" in made
    finally:
        for name in ("build", "formulas", "notebooks", "rooms"):
            sys.modules.pop(name, None)
