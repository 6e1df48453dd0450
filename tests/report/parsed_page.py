"""A page as a browser would see it."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would see: tags, attributes that load something, text by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._heading = self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        self._heading = tag == "h3"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data
        if self._heading:
            self.headings.append(data)
            self._heading = False

    def table(self, *header: str) -> list[list[str]]:
        """The rows of the first table whose header begins with these cells; empty if there is none."""
        return next((table[1:] for table in self.tables if table and tuple(table[0][: len(header)]) == header), [])
