"""The README's examples run, and print lines of the form that it shows; its links lead somewhere."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)


def run(code):
    """Standard output of an example."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    return out.getvalue()


def test_the_first_example():
    i = next(i for i, (kind, code) in enumerate(BLOCKS) if kind == "python" and "VampPrior" in code)
    code, shown = BLOCKS[i][1], BLOCKS[i + 1][1]
    assert "epochs=300" in code and "pv.IS(1000)" in code
    printed = run(code.replace("epochs=300", "epochs=1").replace("pv.IS(1000)", "pv.IS(30)"))

    def form(text):
        return re.sub(r"-\d+\.\d\d", "#", text)

    assert form(printed) == form(shown)


def test_the_example_of_a_hand_written_program():
    code = next(code for kind, code in BLOCKS if kind == "python" and "GammaPoisson" in code)
    assert "IS" in run(code)


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
