"""MkDocs hook: links to files outside docs/ work on the site as they do on GitHub.

MkDocs cannot follow a link such as ../results/reference/digits/tables.md. Each file linked to is added to the site,
Markdown as a page and everything else unchanged, and the link is rewritten. A missing file fails the strict build.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
PAGES = {  # named in mkdocs.yml
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "config" / "README.md": "configurations.md",
}


def on_files(files, config):
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(source)))
    queue = [file for file in files if file.src_uri.endswith(".md")]
    while queue:
        page = queue.pop()
        for target in map(linked(page), LINK.findall(page.content_string)):
            if target.is_file() and files.get_file_from_path(site_uri(target)) is None:
                uri = site_uri(target)
                files.append(File.generated(config, uri, abs_src_path=str(target), inclusion=InclusionLevel.NOT_IN_NAV))
                if uri.endswith(".md"):
                    queue.append(files.get_file_from_path(uri))
    return files


def on_page_markdown(markdown, page, config, files):
    here = os.path.dirname(page.file.src_uri)
    target = linked(page.file)
    return LINK.sub(lambda link: os.path.relpath(site_uri(target(link[0])), here or "."), markdown)


def linked(file):
    """A function from a relative link in this file to the path it leads to."""
    folder = Path(file.abs_src_path).parent
    return lambda link: Path(os.path.normpath(folder / link))


def site_uri(path):
    """Where a file of the repository is on the site: docs/ is the root."""
    if path in PAGES:
        return PAGES[path]
    if path == ROOT / "README.md":
        return "readme/index.md"  # / is docs/index.md
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
