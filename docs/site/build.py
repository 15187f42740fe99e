"""Builds the documentation site from docs/, README.md and the docstrings: `make docs`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from formulas import with_mathml  # noqa: E402
from notebooks import as_markdown  # noqa: E402
from rooms import write_rooms  # noqa: E402

BUILD = ROOT / "build"
PAGES = BUILD / "docs"
PACKAGE = BUILD / "package"
SITE = BUILD / "site"
# Pages that are not of docs/, by their place on the site.
OUTSIDE = {
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")


def place_of(file: str) -> str:
    """Place of a file of the repository on the site."""
    if file in OUTSIDE:
        return OUTSIDE[file]
    if file.startswith("docs/tutorials/") and file.endswith(".py"):
        return file.removeprefix("docs/").removesuffix(".py") + ".md"
    if file.startswith("docs/") and not file.startswith("docs/site/"):
        return file.removeprefix("docs/")
    return f"source/{file}"


def with_links(text: str, file: str) -> str:
    """Links between files of the repository, turned into links between places of the site.

    A file that is no page goes onto the site as it is.
    """
    here = Path(place_of(file)).parent

    def turned(match: re.Match[str]) -> str:
        head, target, anchor, tail = match.groups(default="")
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group()
        meant = os.path.normpath(Path(file).parent / target)
        if not (ROOT / meant).is_file():
            return match.group()  # the strict build names it
        place = place_of(meant)
        if place.startswith("source/"):
            (PAGES / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / meant, PAGES / place)
        return f"{head}{os.path.relpath(place, here)}{anchor}{tail}"

    return LINK.sub(turned, text)


def stage(run: Callable[[str], bool]) -> None:
    """Writes all pages, as Markdown, into build/docs; those tutorials are run whose name `run` takes."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs/figures", PAGES / "figures")
    shutil.copyfile(HERE / "site.css", PAGES / "site.css")
    texts = [*OUTSIDE, *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
    for file in dict.fromkeys(texts):
        write(file, (ROOT / file).read_text())
    for path in sorted((ROOT / "docs/tutorials").glob("*.py")):
        file, execute = str(path.relative_to(ROOT)), run(path.stem)
        if execute:
            print(f"runs {file}", flush=True)
        write(file, as_markdown(path, PAGES / place_of(file), execute))


def write(file: str, text: str) -> None:
    """Writes a page that comes from a file of the repository."""
    target = PAGES / place_of(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(with_mathml(with_links(text, file)))


def navigation() -> list[dict[str, Any]]:
    """The menu: sections and links of docs/README.md.

    Raises:
        ValueError: a page of docs/ that it leaves out.
    """
    sections: dict[str, list[dict[str, str]]] = {}
    title = ""
    for line in (ROOT / "docs/README.md").read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif title and (found := re.match(r"\| \[([^\]]+)\]\(([^)#]+)\)", line)):
            target = os.path.normpath(Path("docs") / found[2])
            sections.setdefault(title, []).append({found[1]: place_of(target)})
    listed = {page for pages in sections.values() for entry in pages for page in entry.values()}
    sources = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs/tutorials").glob("*.py")]
    missing = {place_of(str(p.relative_to(ROOT))) for p in sources} - listed - {OUTSIDE["docs/README.md"]}
    if missing:
        raise ValueError(
            f"expected docs/README.md to have a row for each page, got none for {sorted(missing)}"
        )
    return [{"pyrovae": "index.md"}, *({t: p} for t, p in sections.items())]


def toml(value: Any) -> str:
    """A value of strings, lists and tables, in TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def package() -> None:
    """Links the three folders of the package into one tree, as it is when installed."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    (PACKAGE / "pyrovae").mkdir(parents=True)
    for item in (*(ROOT / "pyrovae").iterdir(), ROOT / "models", ROOT / "inference"):
        (PACKAGE / "pyrovae" / item.name).symlink_to(item)


def main(argv: list[str] | None = None) -> int:
    """Stages the pages, and has the site built of them; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--without-outputs",
        action="store_true",
        help="do not run the tutorials: their pages show code and text alone",
    )
    parser.add_argument("--only", nargs="+", metavar="TUTORIAL", help="run these alone, such as own_table")
    options = parser.parse_args(argv)
    names = {path.stem for path in (ROOT / "docs/tutorials").glob("*.py")}
    if options.only and not names >= set(options.only):
        parser.error(f"expected --only among {sorted(names)}, got {options.only}")
    stage(lambda name: not options.without_outputs and name in (options.only or names))
    package()
    rooms = write_rooms(PAGES / "api")
    nav = [*navigation(), {"API": [{title: f"api/{name}"} for title, name in rooms.items()]}]
    config = (HERE / "zensical.toml").read_text()
    for key, value in (("DOCS", PAGES), ("SITE", SITE), ("PACKAGE", PACKAGE)):
        config = config.replace(f'"@{key}@"', json.dumps(os.path.relpath(value, BUILD)))
    (BUILD / "zensical.toml").write_text(config.replace("@NAV@", toml(nav)))
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
    done = subprocess.run([*command, "--config-file", BUILD / "zensical.toml"], check=False)
    if done.returncode == 0:
        print(f"the site is in {SITE.relative_to(ROOT)}: open {SITE.relative_to(ROOT)}/index.html")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
