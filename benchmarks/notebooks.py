"""Run the notebooks in examples/, and store them with their outputs.

python benchmarks/notebooks.py examples/ask_a_reduced_model.ipynb
python benchmarks/notebooks.py  # all of them
"""

import argparse
import base64
import io
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from pumer_hf.release import PACKAGE, needs_wheel

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
TIMEOUT = 1800
"""Seconds that a cell may take."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What a notebook says about the kernel. It names no version, since any will do."""
QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
"""Bars that are full are of no use in a stored notebook."""
FOLDER = re.compile(r"(?<![\w./:])/(?:home|root|tmp|private|var|usr|opt|mnt|work|Users|content|kaggle)/")
"""The beginning of a path on a machine. In an address, a letter or a point stands before it."""
COLOURS = 256
"""Colours of a stored picture. With so few, its file is small."""


def install_cell() -> str:
    """Return the first code cell of a notebook. It installs this package, with what the digit scenes need."""
    until = f"  # PyPI has no {PACKAGE} yet: install it in a clone: pip install '.[digits]'" if needs_wheel() else ""
    return f"""\
from importlib.util import find_spec

if find_spec("pumer_hf") is None:{until}
    %pip install -q "{PACKAGE}[digits]\""""


def problems(notebook: dict[str, Any]) -> list[str]:
    """Return what is wrong with the outputs of a notebook: errors, warnings, widgets and paths of a machine.

    Args:
        notebook: the notebook, as JSON.
    """
    found = []
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        data = output.get("data", {})
        text = str({**output, "data": {kind: value for kind, value in data.items() if not kind.startswith("image/")}})
        if output["output_type"] == "error" or output.get("name") == "stderr" or FOLDER.search(text):
            found.append(text)
        found += [f"{kind} in an output" for kind in data if "widget" in kind]
    return found


def smaller(png: str) -> str:
    """Return a picture in fewer colours, as base64 text."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2)  # which keeps rare colours too
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def tidy(cell: dict[str, Any]) -> None:
    """Remove from a cell that was run what no reader needs: times, a second copy of each picture, and many colours."""
    cell["metadata"].pop("execution", None)
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        data.pop("image/jpeg", None)  # the same as image/png
        if "image/png" in data:
            data["image/png"] = smaller(data["image/png"])


def run(path: Path) -> None:
    """Run a notebook in an empty folder, and store it with its outputs.

    Raises:
        ValueError: an output is not for other people.
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.cell_type == "code").source = install_cell()
    with TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=TIMEOUT, resources=place, coalesce_streams=True)
        client.execute(env={**os.environ, **QUIET})
    notebook.metadata = METADATA
    for cell in notebook.cells:
        tidy(cell)
    wrong = problems(notebook)
    if wrong:
        raise ValueError("\n".join([f"{path.name} is not stored:", *wrong]))
    nbformat.write(notebook, path)


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS, help="default: those in examples/")
    for path in parser.parse_args().notebooks:
        print(path)
        run(path)


if __name__ == "__main__":
    main()
