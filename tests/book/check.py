"""Checks a built book: check.py FOLDER

Links: each leads to a file of the book, and its anchor to a place on that page. Nothing is loaded from elsewhere.
Readers: each question below is answered within two clicks of the first page, by links of the text alone (no sidebar, no search).
Pages: each page of the summary is reached from the first one by links of the text.
"""
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

# A question of a reader, and words that its answer has.
QUESTIONS = [
    ("what is one weight", "w[n,k]  = s1[n] * w8[n,k]"),
    ("how do I quantize", "dualgrain quantize models/llama-tiny --out llama-tiny-w4a8"),
    ("what will it cost", "dualgrain cost models/llama-tiny --device h200"),
    ("how do I serve", "dualgrain serve llama-tiny-w4a8"),
    ("what can it not do", "What dualgrain does not have"),
    ("how was this figure measured", "From a figure to its record"),
    ("where do I add a family", "Public configurations become fixtures"),
]
CLICKS = 2
# Elements that load or lead somewhere, and by which attribute.
TARGETS = {"a": "href", "img": "src", "link": "href", "script": "src", "iframe": "src"}


class Page(HTMLParser):
    """Links, anchors and text of a page; those of its text alone apart."""

    def __init__(self, file):
        super().__init__()
        self.links, self.text_links, self.anchors, self.loaded, self.words = [], [], set(), [], []
        self.depth = 0
        self.feed(file.read_text())
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.depth += tag == "main"
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        target = attributes.get(TARGETS.get(tag))
        if not target:
            return
        self.links.append(target)
        if tag == "a" and self.depth:
            self.text_links.append(target)
        if tag != "a":
            self.loaded.append(target)

    def handle_endtag(self, tag):
        self.depth -= tag == "main"

    def handle_data(self, data):
        if self.depth:
            self.words.append(data)


def is_elsewhere(target):
    return "://" in target or target.startswith(("mailto:", "//"))


def place(page, target):
    """The file a link leads to, and the anchor there."""
    path, _, anchor = target.partition("#")
    path = unquote(path.partition("?")[0])
    file = Path(os.path.normpath(page.parent / path)) if path else page
    return file, unquote(anchor)


def link_faults(pages):
    for file, page in pages.items():
        for target in page.links:
            if is_elsewhere(target):
                if target in page.loaded:
                    yield f"{file} loads {target}"
                continue
            there, anchor = place(file, target)
            if not there.exists():
                yield f"{file}: {target} leads nowhere"
            elif anchor and there in pages and anchor not in pages[there].anchors:
                yield f"{file}: {target}: no such place on that page"


def reached(pages, first, clicks):
    """Pages by links of the text, with the number of clicks."""
    found, edge = {first: 0}, [first]
    for click in range(1, clicks + 1):
        links = [place(file, target)[0] for file in edge for target in pages[file].text_links if not is_elsewhere(target)]
        edge = [file for file in dict.fromkeys(links) if file in pages and file not in found]
        found.update((file, click) for file in edge)
    return found


def unanswered(pages, found):
    for question, words in QUESTIONS:
        answers = [(clicks, file) for file, clicks in found.items() if words in pages[file].text]
        if not answers:
            yield f"{question}? No page within {CLICKS} clicks of the first one says: {words}"
            continue
        clicks, file = min(answers)
        print(f"{question}? {file.name}, {clicks} click" + "s" * (clicks != 1))


def main():
    book = Path(sys.argv[1]).resolve()
    files = sorted(file for file in book.rglob("*.html") if file.name not in ("404.html", "toc.html"))
    pages = {file: Page(file) for file in files}
    first = book / "index.html"
    faults = list(link_faults(pages))
    faults += unanswered(pages, reached(pages, first, CLICKS))
    everywhere = reached(pages, first, len(pages))
    faults += [f"{file}: no link of a text leads there" for file in pages if file not in everywhere]
    num_links = sum(len(page.links) for page in pages.values())
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults or num_links < 1000:
        sys.exit(f"{len(faults)} faults, {num_links} links on {len(pages)} pages")
    print(f"{num_links} links on {len(pages)} pages lead somewhere")


main()
