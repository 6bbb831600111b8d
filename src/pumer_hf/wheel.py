"""A wheel of this package, made from the package that runs, for models and Spaces that carry it.

Making it needs no clone, no network and no build tools. The code comes from the folder of the package. The metadata
comes from its installation. So the wheel is the same after `pip install -e .` and after an installation from a wheel.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from .editable import check_editable, is_editable
from .recipe_files import IN_PACKAGE, PATTERN, recipe_folder
from .release import PACKAGE

SUFFIXES = (".py", ".typed", ".jinja", ".json", ".safetensors", ".png")
"""The suffixes of the files of the package: the code, and the data that setup.cfg lists."""
METADATA = ("METADATA", "entry_points.txt", "top_level.txt")
"""The metadata of an installation that is published. The rest says how and from where it was installed here."""
LICENSES = "licenses"
"""The folder of the licences in the metadata."""
TAG = "py3-none-any"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of each file in a wheel, the first that a zip archive can hold. So the same code makes the same bytes."""


def make_wheel() -> tuple[str, bytes]:
    """Return the file name and the content of a wheel of this package, as it runs here.

    Raises:
        ImportError: the package is not installed, so there is no metadata; or the clone has changed since.
    """
    installed = installation()
    stem = f"{PACKAGE.replace('-', '_')}-{installed.version}"
    info = f"{stem}.dist-info"
    contents = dict(code_files(installed)) | {f"{info}/{name}": content for name, content in metadata_files(installed)}
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {PACKAGE} ({installed.version})\nRoot-Is-Purelib: true\nTag: {TAG}\n"
    ).encode()
    contents[f"{info}/RECORD"] = record(contents, f"{info}/RECORD")
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            entry = ZipInfo(name, EARLIEST)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return f"{stem}-{TAG}.whl", buffer.getvalue()


def installation() -> Distribution:
    """Return the metadata that pip has installed. The build folder of a clone holds less, and is not used.

    Raises:
        ImportError: the package is not installed, or the clone has changed since.
    """
    for found in distributions(name=PACKAGE):
        if found.read_text("WHEEL") is not None:
            check_editable(found)
            return found
    raise ImportError(
        f"{PACKAGE} is not installed, so no wheel of it can be made: run `pip install -e .` in its folder"
    )


def installation_kind() -> str:
    """Return how the code that runs came here: `"wheel"`, `"editable"`, or `"not installed"` if by PYTHONPATH."""
    here = Path(__file__).resolve()
    for found in distributions(name=PACKAGE):
        if is_editable(found):
            return "editable"
        is_here = Path(str(found.locate_file("pumer_hf/wheel.py"))).resolve() == here
        if is_here and found.read_text("WHEEL") is not None:
            return "wheel"
    return "not installed"


def code_files(installed: Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the package by their path in the wheel: the code and the recipe files."""
    root = Path(__file__).parents[1]
    for package in (installed.read_text("top_level.txt") or "").split():
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path.relative_to(root).as_posix(), path.read_bytes()
    recipes = recipe_folder()
    for path in sorted(recipes.glob(PATTERN)):
        yield f"{IN_PACKAGE}/{path.relative_to(recipes).as_posix()}", path.read_bytes()


def metadata_files(installed: Distribution) -> Iterator[tuple[str, bytes]]:
    """Yield the metadata files by their path in the wheel's folder of metadata."""
    licenses = [f"{LICENSES}/{name}" for name in installed.metadata.get_all("License-File") or ()]
    for name in (*METADATA, *licenses):
        text = installed.read_text(name)
        if text is not None:
            yield name, text.encode()


def record(contents: Mapping[str, bytes], record_name: str) -> bytes:
    """Return the list of the files of a wheel, with their hashes. The list names itself without a hash."""
    lines = []
    for name, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{record_name},,\n"]).encode()
