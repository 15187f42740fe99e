"""HTML tables: escaped, well formed, without scripts or colours of their own."""

from html.parser import HTMLParser

import pytest

from pyrovae.html_tables import html_table


class Reader(HTMLParser):
    """Texts of an HTML fragment, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[31m"


def test_text_is_shown_and_does_not_act():
    made = html_table([HOSTILE, "b"], [[HOSTILE, 1.5]], HOSTILE, [HOSTILE], [HOSTILE])
    read = Reader(made)
    assert "script" not in read.tags and "\x1b" not in made
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert sum(shown in text for text in read.texts) == 5
    assert "1.5" in read.texts


def test_warnings_are_told_from_notes():
    read = Reader(html_table(["a"], [["b"]], notes=["this is a note"], warnings=["this warns"]))
    assert read.texts[-3:] == ["this is a note", "Warning:", " this warns"]


def test_colours_are_those_of_the_page():
    made = html_table(["a"], [["b"]], "c", ["d"], ["e"]).replace(" ", "")
    assert "background:#" not in made and ";color:#" not in made and '"color:#' not in made


def test_head_is_left_out_where_it_is_empty():
    assert "thead" not in Reader(html_table(["", ""], [["a", "b"]])).tags


def test_rows_have_a_cell_a_column():
    with pytest.raises(ValueError, match=r"expected 2 cells in each row, got 1"):
        html_table(["a", "b"], [["c"]])
