"""Tutorials, scripts in jupytext's percent format, as Markdown with the outputs of their cells."""

from __future__ import annotations

from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter


def as_markdown(source: Path, page: Path, execute: bool) -> str:
    """The text of a page; its figures are written into a folder beside it.

    A cell that raises, an assertion that does not hold among them, ends the build.
    """
    notebook = jupytext.read(source)
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    if execute:
        kernel = {"kernel_name": "python3", "timeout": 600}
        NotebookClient(notebook, resources={"metadata": {"path": str(source.parent)}}, **kernel).execute()
    figures = f"{page.stem}_figures"
    resources = {"output_files_dir": figures, "unique_key": page.stem}
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        for output in cell.outputs:
            if "text" in output:  # warnings name files: not by their place on this machine
                output["text"] = output["text"].replace(f"{source.parents[2]}/", "")
        # Of tqdm, which Pyro imports and which misses widgets that nobody asked for.
        cell.outputs = [o for o in cell.outputs if "TqdmWarning" not in o.get("text", "")]
    text, made = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    (page.parent / figures).mkdir(parents=True, exist_ok=True)
    for name, content in made["outputs"].items():
        (page.parent / name).write_bytes(content)
    return str(text)
