"""A hook of mkdocs: pages of the repository's root become pages of the site, and their links are turned."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}


def turned(text: str) -> str:
    """A page of the root as a page of ``docs/``."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    text = re.sub(r"\[([^\]]*)\]\((examples/[^)]*)\)", r"\1 (`\2`)", text)  # not of the site
    return re.sub(r"\]\(docs/", "](", text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=turned((ROOT / name).read_text())))
    return files
