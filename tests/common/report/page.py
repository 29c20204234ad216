"""An HTML page as a test reads it, and files to put into run folders."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

RANDOM = np.random.default_rng(0)


def noise(h=8, w=8):
    return RANDOM.integers(0, 256, (h, w, 3), np.uint8)


def write_json(path, **values):
    path.write_text(json.dumps(values))


class Page(HTMLParser):
    """Tags of a page and its text, without navigation; fails if tags are not closed in order."""

    def __init__(self, path):
        super().__init__()
        self.html = Path(path).read_text(encoding="utf-8")
        self.tags, self.words, self.folded, self.open = [], [], [], []
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())
        self.folded = " ".join(" ".join(self.folded).split())  # hidden until a fold is opened

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            is_closed = tag == "details" and "open" not in dict(attributes)
            self.open.append("closed details" if is_closed else tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop().removeprefix("closed ") == tag

    def handle_data(self, data):
        if {"style", "script", "nav"} & set(self.open):
            return
        self.words.append(data)
        if "closed details" in self.open and self.open[-1] != "summary":
            self.folded.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def assert_in_order(text, parts):
    place = 0
    for part in parts:
        assert part in text[place:], part
        place = text.index(part, place) + len(part)
