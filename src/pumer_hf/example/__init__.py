"""A small trained model and two pictures, which come with the package. So a first try needs no network.

The model is a ViLT for questions about scenes of handwritten digits, with a scorer for `lookahead`. Its recipe is
`recipes/vilt/digit_scenes_cluttered/lookahead.yaml`. `results.json` beside it says how good and how fast it is. The
pictures are scenes of the test split.
"""

import shutil
from pathlib import Path

_FOLDER = Path(__file__).parent
MODEL = str(_FOLDER / "model")
"""The folder of the model, as `from_pretrained` takes it."""
IMAGES = [str(_FOLDER / name) for name in ("scene-1.png", "scene-2.png")]
"""The files of the pictures."""


def copy_example(folder: str | Path) -> list[Path]:
    """Copy the model and the pictures into a folder.

    Args:
        folder: a new or empty folder, or one with other files.

    Returns:
        The paths of the copies: the folder of the model, then the pictures.

    Raises:
        FileExistsError: one of the copies is there already. Nothing is overwritten.
    """
    folder = Path(folder)
    copies = [folder / Path(source).name for source in (MODEL, *IMAGES)]
    for copy in copies:
        if copy.exists():
            raise FileExistsError(f"{copy} exists: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(MODEL, copies[0])
    for source, copy in zip(IMAGES, copies[1:], strict=True):
        shutil.copyfile(source, copy)
    return copies
