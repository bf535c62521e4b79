"""Hooks of the docs site (mkdocs.yml): tables of benchmarks, and a check that pages load nothing from other servers.

A page takes a section of `benchmarks/results/README.md` with a line `<!-- results: HEADING -->`.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
_PLACE = re.compile(r"<!-- results: (.+) -->")
_LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//[^\"]*\"|<link\b[^>]*>")
_ELSEWHERE = re.compile(r"\bhref=\"(?:https?:)?//")


def sections(text: str) -> dict[str, str]:
    """Return the sections of a Markdown page by their headings of level 2; what precedes the first one is "machine"."""
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    _, _, machine = first.partition("\n")
    found = {"machine": machine.strip()}
    for section in others:
        heading, _, body = section.partition("\n")
        found[heading.strip()] = body.strip()
    return found


def with_results(markdown: str, results: dict[str, str]) -> str:
    """Return a page with its places for results filled in.

    Raises:
        PluginError: A place names a section that the results do not have.
    """

    def section(place: re.Match[str]) -> str:
        if place[1] not in results:
            raise PluginError(f"benchmarks/results/README.md has no section {place[1]!r}; it has {', '.join(results)}")
        return results[place[1]].replace("](", "](assets/")

    return _PLACE.sub(section, markdown)


def loaded_from_elsewhere(html: str) -> list[str]:
    """Return the tags of a page that make a browser load something from another server."""
    return [
        tag
        for tag in _LOADED.findall(html)
        if not tag.startswith("<link") or (_ELSEWHERE.search(tag) and not _is_a_hint(tag))
    ]


def _is_a_hint(tag: str) -> bool:
    """Return True for a link that a browser does not follow by itself."""
    return re.search(r"\brel=\"(?:canonical|edit|prev|next)\"", tag) is not None


def on_files(files: Files, config: Any) -> Files:
    """Add the plots of the benchmarks to the site."""
    for plot in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"assets/{plot.name}", abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the results of the benchmarks."""
    return with_results(markdown, sections((RESULTS / "README.md").read_text(encoding="utf-8")))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that loads scripts, styles or pictures from other servers."""
    if tags := loaded_from_elsewhere(output):
        raise PluginError(f"{page.file.src_path} would load from another server: {tags[0]}")
    return output
