"""Files of the repository inside the book, so that no link of a page leaves it.

As mdBook's preprocessor: links from docs/ to other files of the repository become links below repository/, and pages of the
summary that lie outside docs/ (../DESIGN.md) get a place in code/. With `pages FOLDER`: writes a page for each file that is linked to
into the built book in FOLDER. Folders show their README and what lies in them.
"""
import html
import json
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# What is linked to, by its place in the book.
LINKED = ROOT / "target/book/linked.json"
# Nobody reads more in a browser.
SHOWN_BYTES = 300_000
# Code is left alone: blocks between fences, and what stands between backticks.
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def inside_book(file):
    """Where a file of the repository lies in the book, as a path of Markdown or of what is copied."""
    if file == DOCS / "README.md":
        return "index.md"
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    if file.parent == ROOT and file.name in ("DESIGN.md", "CHANGELOG.md"):
        return f"code/{file.name.lower()}"
    name = file.relative_to(ROOT).as_posix()
    # mdBook changes names with .md in links.
    return f"repository/{name.replace('.', '-')}.html"


def moved(target, source, place, linked):
    """A link of the page `source` of docs/, as it must be on the page `place` of the book."""
    if "://" in target or target.startswith(("#", "mailto:")):
        return target
    path, mark, anchor = target.partition("#")
    file = Path(os.path.normpath(DOCS / Path(source).parent / path))
    if not file.is_relative_to(ROOT) or not file.exists():
        return target
    name = inside_book(file)
    if name.startswith("repository/"):
        linked[name] = file.relative_to(ROOT).as_posix()
    there = os.path.relpath(name, Path(place).parent)
    return there + mark + (anchor if there.endswith(".md") else "")


def rewritten(text, source, place, linked):
    pieces = CODE.split(text)
    for index in range(0, len(pieces), 2):
        pieces[index] = LINK.sub(lambda found: f"]({moved(found[1], source, place, linked)})", pieces[index])
    return "".join(pieces)


def walk(items, linked):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter is None:
            continue
        source = chapter.get("source_path") or chapter.get("path")
        if source:
            chapter["path"] = inside_book(Path(os.path.normpath(DOCS / source)))
            chapter["content"] = rewritten(chapter["content"], source, chapter["path"], linked)
        walk(chapter["sub_items"], linked)


def preprocess():
    _, book = json.load(sys.stdin)
    linked = {}
    walk(book["items"], linked)
    LINKED.parent.mkdir(parents=True, exist_ok=True)
    LINKED.write_text(json.dumps(linked, indent=0))
    json.dump(book, sys.stdout)


def page(file):
    """What a file, or a folder, of the repository shows."""
    name = html.escape(file.relative_to(ROOT).as_posix())
    if file.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in file.iterdir())
        readme = file / "README.md"
        text = "\n".join(names) + ("\n\n" + readme.read_text() if readme.is_file() else "")
    else:
        text = file.read_text(errors="replace")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{name}</title><style>:root{{color-scheme:light dark}}body{{margin:1rem;font:15px/1.45 system-ui,sans-serif}}"
        "pre{overflow-x:auto;font:13px/1.45 ui-monospace,monospace}</style></head>"
        f"<body><h1>{name}</h1><pre>{html.escape(text)}</pre></body></html>\n"
    )


def pages(folder):
    linked = json.loads(LINKED.read_text())
    for name, source in sorted(linked.items()):
        file, place = ROOT / source, Path(folder) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() and file.stat().st_size > SHOWN_BYTES:
            sys.exit(f"{source} has more than {SHOWN_BYTES} bytes: a page of the book must link to its folder instead")
        place.write_text(page(file))
    print(f"{len(linked)} files of the repository are part of the book")


match sys.argv[1:]:
    case ["supports", _]:
        pass
    case ["pages", folder]:
        pages(folder)
    case []:
        preprocess()
    case _:
        sys.exit(__doc__)
