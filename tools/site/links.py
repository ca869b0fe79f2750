#!/usr/bin/env python3
"""Checks that every link of the pages leads somewhere; addresses on other machines are not asked.

    python3 tools/site/links.py                      the pages as they are written
    python3 tools/site/links.py target/site/html     the site as it was built; it must not fetch anything from elsewhere either
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Attributes that are loaded with a page, where `href` of a link is followed by its reader.
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


def pages():
    """Everything that the site is made of."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def prose(path):
    """The text without code, line by line."""
    text = re.sub(r"^( *)```.*?^\1```$", lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [re.sub(r"`[^`]*`", "", line) for line in text.split("\n")]


def links(path):
    """Line and target of each link to a file."""
    for number, line in enumerate(prose(path), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", line):
            target = target[0] or target[1]
            if not re.match(r"[a-z]+:", target):
                yield number, target


def anchors(path):
    """Anchors of a page's headings, as forges make them."""
    text = re.sub(r"^( *)```.*?^\1```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def written():
    """What is wrong with the pages as they are written."""
    for path in pages():
        for line, target in links(path):
            name, _, anchor = target.partition("#")
            there = (path.parent / name).resolve() if name else path
            if not there.exists():
                yield f"{path.relative_to(ROOT)}:{line}: {target}: no such file"
            elif anchor and anchor not in anchors(there):
                yield f"{path.relative_to(ROOT)}:{line}: {target}: no such heading"


class Page(html.parser.HTMLParser):
    """What a built page is called by and leads to."""

    def __init__(self, path):
        super().__init__()
        self.names, self.targets, self.loaded = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.names.add(value)
            elif (tag, name) in LOADED:
                self.loaded.append(value)
            elif (tag, name) == ("a", "href"):
                self.targets.append(value)


def built(site):
    """What is wrong with the pages as they were built."""
    of = {path: Page(path) for path in site.rglob("*.html")}
    for path, page in of.items():
        if path.name == "404.html":
            continue
        for target in page.loaded:
            if re.match(r"(https?:)?//", target):
                yield f"{path.relative_to(site)}: loads {target}"
        for target in page.targets + page.loaded:
            name, _, anchor = urllib.parse.unquote(target).partition("#")
            there = (path.parent / name).resolve() if name else path
            if re.match(r"[a-z]+:|//", target):
                continue
            if not there.is_file():
                yield f"{path.relative_to(site)}: {target}: no such file"
            elif anchor and there in of and anchor not in of[there].names and not anchor.startswith("__"):
                yield f"{path.relative_to(site)}: {target}: no such place"


def main():
    found = sorted(set(built(pathlib.Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else written()))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
