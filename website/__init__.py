"""The documentation site: the pages that are made from the code, and the links between pages, code and reference.

`make docs` builds the site. Only `hooks.py` and `names.py` need mkdocs.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = "https://pumer-hf.github.io/pumer-hf/"
"""The address of the site, as mkdocs.yml has it."""
