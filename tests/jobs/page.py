"""Reads an HTML page as a strict parser would, and fails on what no page of preln may have."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link"}
CLOSED_IN_SVG = {"path", "use", "rect", "circle"}  # written as <path …/>


class Page(HTMLParser):
    """A page's tags and text. Raises AssertionError for tags that don't match, an id that is there twice, scripts, handlers, and
    anything that would be fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.references: set[str] = set()
        self.tags: list[str] = []
        self.text = ""
        assert html.startswith("<!DOCTYPE html>\n")
        self.feed(html)
        self.close()
        assert self.open == []
        assert self.references <= self.ids
        assert not re.search(r"https?:|//\w+\.\w", re.sub(r">[^<]*<", "><", html)), "an address outside of the text"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "img"}, tag
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        assert not any(name.startswith("on") for name in names)
        values = dict(attrs)
        if (identifier := values.get("id")) is not None:
            assert identifier not in self.ids, identifier
            self.ids.add(identifier)
        for name in ("href", "src"):
            if (target := values.get(name)) is not None:
                assert target.startswith("#"), target
                self.references.add(target[1:])
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert not any(character < " " and character not in "\n\t" for character in data)
        self.text += data
