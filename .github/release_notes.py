"""Print what CHANGELOG.md says about the version of a tag, as the text of its release on GitHub.

    python .github/release_notes.py v0.2.0

It stops with an error if the repository is not ready: the tag is that of another version, the changelog has no dated
entry, or the package still says that PyPI does not have it. It imports nothing but Python's own modules.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def release_notes(tag: str, root: Path = ROOT) -> str:
    """Return the text of the changelog's entry for a tag.

    Raises:
        ValueError: the repository is not ready for this tag.
    """
    code = (root / "src" / "pumer_hf" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', code, re.MULTILINE)
    if tag != f"v{version}":
        raise ValueError(f"tag={tag!r}: the version is {version}, so its tag is v{version}")
    if "\nPUBLISHED = True\n" not in (root / "src" / "pumer_hf" / "release.py").read_text(encoding="utf-8"):
        raise ValueError("PUBLISHED must be True in src/pumer_hf/release.py: this version will be on PyPI")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n"
    entry = re.search(heading + r"(.*?)(?=^## |^\[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if entry is None or not entry[1].strip():
        raise ValueError(f"CHANGELOG.md has no entry `## [{version}] - <date>`")
    return entry[1].strip() + "\n"


if __name__ == "__main__":
    try:
        print(release_notes(*sys.argv[1:]), end="")
    except ValueError as error:
        sys.exit(str(error))
