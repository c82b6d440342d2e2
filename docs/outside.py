"""Takes into the site what pages link to outside of docs/: pages as pages, files as they are; a link to a folder becomes plain text.

A hook of mkdocs (mkdocs.yml). In the repository links lead where they lead; here they are turned to where the same thing is in the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)\s*?$", re.MULTILINE | re.DOTALL)


def in_site(place: str) -> str:
    """Where a file of the repository is in the site: docs/ is its root, and the README its front page."""
    return "index.md" if place == "README.md" else place.removeprefix("docs/")


def targets(page: str) -> list[str]:
    """The places in the repository that a page links to."""
    text = FENCE.sub("", (ROOT / page).read_text())
    return [posixpath.normpath(posixpath.join(posixpath.dirname(page), link["path"])) for link in LINK.finditer(text)]


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to, and what that links to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        for place in targets(waiting.pop()):
            if place in seen or place.startswith(("docs/", "..")) or place == "README.md" or not (ROOT / place).is_file():
                continue
            seen.add(place)
            files.append(File(place, str(ROOT), config.site_dir, config.use_directory_urls, inclusion=InclusionLevel.NOT_IN_NAV))
            if place.endswith(".md"):
                waiting.append(place)
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Of a table's code spans, show `|` as code hosts do, which need it escaped."""
    return re.sub(r"<code>[^<]*</code>", lambda code: code[0].replace("\\|", "|"), html)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page."""
    here = page.file.src_uri
    outside = page.file.src_dir == str(ROOT)
    there = here if outside else f"docs/{here}"

    def turned(link: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(there), link["path"]))
        if (ROOT / place).is_dir():
            return link["text"]
        path = posixpath.relpath(in_site(place), posixpath.dirname(here) or ".")
        return f"{link['image']}[{link['text']}]({path}{link['anchor'] or ''})"

    pieces, end = [], 0
    for fence in FENCE.finditer(markdown):
        pieces += [LINK.sub(turned, markdown[end:fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(turned, markdown[end:])])
