"""The check that an editable installation still fits its clone, which may have changed since."""

import json
import re
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement

CLONE = Path(__file__).resolve().parents[2]
"""The clone, if this code runs in one."""
MAX_NAMED = 5
"""How many differences of each kind an error names."""


def check_editable(installed: Distribution) -> None:
    """Raise `ImportError` if this code is an editable installation, and the clone says something else than pip noted.

    A second working tree that runs by PYTHONPATH is not compared with the installation of the first.
    """
    if not is_editable(installed):
        return
    now, then = set(declared(CLONE)), set(noted(installed))
    if now != then:
        added, gone = (named(sorted(names)) for names in (now - then, then - now))
        raise ImportError(
            f"{CLONE} has changed since pip installed it, so no wheel of it can be made. New: {added}. No longer "
            f"there: {gone}. To mend it, run `pip install -e .` again in {CLONE}"
        )


def is_editable(installed: Distribution) -> bool:
    """Return whether this code is that of a clone, to which `pip install -e` leads."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return False
    return Path(url2pathname(urlsplit(origin["url"]).path)).resolve() == CLONE


def named(names: Sequence[str]) -> str:
    """List the first names, and say how many more there are."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(names[:MAX_NAMED]) or "nothing") + more


def declared(clone: Path) -> Iterator[str]:
    """Yield what setup.cfg and the source folder say: version, packages, Python, requirements and commands."""
    config = ConfigParser(delimiters="=", interpolation=None)
    config.read(clone / "setup.cfg", encoding="utf-8")
    code = (clone / "src" / "pumer_hf" / "__init__.py").read_text(encoding="utf-8")
    yield from (f"version {number}" for number in re.findall(r'^__version__ = "(.+)"$', code, re.MULTILINE))
    for path in (clone / "src").glob("*/__init__.py"):
        yield f"package {path.parent.name}"
    yield f"python{config['options']['python_requires']}"
    for line in lines(config["options"]["install_requires"]):
        yield str(Requirement(line))
    for extra, text in config["options.extras_require"].items():
        for line in lines(text):
            yield str(Requirement(f"{line}; extra == '{extra}'"))
    yield from lines(config["options.entry_points"]["console_scripts"])


def noted(installed: Distribution) -> Iterator[str]:
    """Yield the same facts as [`declared`], as pip has noted them."""
    yield f"version {installed.version}"
    for name in lines(installed.read_text("top_level.txt") or ""):
        yield f"package {name}"
    yield f"python{installed.metadata['Requires-Python']}"
    for line in installed.requires or ():
        yield str(Requirement(line))
    for command in installed.entry_points.select(group="console_scripts"):
        yield f"{command.name} = {command.value}"


def lines(text: str) -> list[str]:
    """Return the lines of a text that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]
