"""Writes the page as a Space that one can push: a folder as Hugging Face Spaces expects it of an app in a container.

It is not a Space of the kind `gradio`. There pip sees `requirements.txt` and no other file, so it could not install
the wheel of this package from the Space itself.
"""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ..answering import load_with_processor
from ..folders import whole_folder
from ..models.decoder_loading import is_decoder
from ..models.loading import load_checkpoint
from ..release import extra_command
from ..wheel import make_wheel
from .examples import DIGIT_SCENES, FILE, read_examples
from .kinds import kind_of
from .launching import display_name

PORT = 7860
"""The port on which Gradio serves."""
APP = '''"""The page of `pumer-hf demo`."""

from pumer_hf.demo import launch

launch({arguments})
'''
README = """---
{metadata}---

# {title}

Ask the model about an image, next to the unreduced model, and see which patches it keeps, drops and merges.
Made with `pumer-hf demo --export-space`. To run it on your machine, in this folder:

```sh
pip install -r requirements.txt
python app.py
```
"""
DOCKERFILE = """FROM python:{python}
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user/app
ENV PATH=/home/user/.local/bin:$PATH
COPY --chown=user . .
RUN pip install --no-cache-dir -r requirements.txt
ENV GRADIO_SERVER_NAME=0.0.0.0 GRADIO_SERVER_PORT={port}
CMD ["python", "app.py"]
"""


def export_space(
    checkpoint: str,
    folder: str,
    teacher: str | None = None,
    examples: str | None = None,
    requirement: str | None = None,
    **reduction: Any,
) -> Path:
    """Write a folder that can be pushed as a Space.

    It has `app.py`, `requirements.txt`, the wheel of this package, `Dockerfile`, and `README.md` with the metadata of
    a Space. Models and examples of this machine are copied into it. Models on the Hub stay there.

    Args:
        checkpoint: folder or Hub id of a decoder model, or of a reduced encoder model for questions or entailment.
        folder: the folder to make. If it exists, it must be empty.
        teacher: folder or Hub id of an unreduced model to compare it with.
        examples: the argument `source` of [`find_examples`].
        requirement: how pip finds pumer-hf, with the extra `digits` for digit scenes; default: a wheel of this
            installation, which lies in the Space.
        **reduction: `reduction=`, another schedule than the checkpoint's. It is saved with a copied model, or in
            `app.py` if the model stays on the Hub.
    """
    if Path(folder).exists() and (not Path(folder).is_dir() or any(Path(folder).iterdir())):
        raise ValueError(f"--export-space {folder}: it exists and is not empty: choose another folder")
    check_requirement(requirement)
    gradio = gradio_version()
    kind = kind_of(checkpoint)
    asker = kind.load(checkpoint, teacher, **reduction)
    kind.find_examples(examples, asker)  # so that an error comes before anything is written
    scenes = examples == DIGIT_SCENES or (examples is None and kind.knows_only_scenes(asker))
    with whole_folder(folder) as space:
        arguments = {"checkpoint": copied(checkpoint, space / "model", **reduction)}
        if Path(checkpoint).is_dir():
            arguments["name"] = display_name(checkpoint)
        if teacher is not None:
            arguments["teacher"] = copied(teacher, space / "teacher", reduction=None)
        if scenes:
            arguments["examples"] = DIGIT_SCENES
        elif examples is not None:
            arguments["examples"] = copied_examples(Path(examples), space / "examples")
        if not Path(checkpoint).is_dir():
            arguments |= reduction
        text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        requirement = requirement or copied_package(space, "[digits]" if scenes else "")
        ids = [name for name in (checkpoint, teacher) if name is not None and not Path(name).is_dir()]
        files = {"app.py": APP.format(arguments=text), "requirements.txt": f"gradio=={gradio}\n{requirement}\n"}
        files |= {"Dockerfile": dockerfile(), "README.md": readme(display_name(checkpoint), ids)}
        for name, content in files.items():
            (space / name).write_text(content, encoding="utf-8")
    return Path(folder)


def check_requirement(requirement: str | None) -> None:
    """Raise `ValueError` if pip would look for the package on this machine."""
    text = requirement or ""
    if text.startswith(("-", ".", "/", "~")) or "file:" in text or ("/" in text and Path(text).exists()):
        raise ValueError(f"--requirement {text}: a Space has no files of this machine: give a version, or a URL")


def gradio_version() -> str:
    """Return the version of Gradio on this machine; raise `ImportError`, which says what to do, if there is none."""
    try:
        return version("gradio")
    except PackageNotFoundError as error:
        raise ImportError(f"a Space needs the version of Gradio: {extra_command('demo')}") from error


def copied(source: str, destination: Path, **reduction: Any) -> str:
    """Copy a model from a folder into the Space, and return its path there. Return an id on the Hub as it is."""
    if not Path(source).is_dir():
        return source
    load = load_with_processor if is_decoder(source) else load_checkpoint
    for part in load(source, **reduction):
        part.save_pretrained(destination)
    return destination.name


def copied_package(folder: Path, extras: str) -> str:
    """Make a wheel of this package in the Space, and return how pip finds it there."""
    name, content = make_wheel()
    (folder / name).write_bytes(content)
    return f"./{name}{extras}"


def copied_examples(source: Path, destination: Path) -> str:
    """Copy the list of the examples and their images into the Space, and return their path there."""
    destination.mkdir()
    lines = []
    for number, (image, text) in enumerate(read_examples(source)):
        image.save(destination / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "text": text}, ensure_ascii=False))
    (destination / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return destination.name


def dockerfile() -> str:
    """Return the Dockerfile of the Space, with this version of Python and the user id that Spaces need."""
    return DOCKERFILE.format(python=f"{sys.version_info.major}.{sys.version_info.minor}", port=PORT)


def readme(name: str, models: list[str]) -> str:
    """Return the README.md of the Space: the metadata that Spaces read, and a description."""
    metadata: dict[str, Any] = {"title": f"PuMer {name}", "sdk": "docker", "app_port": PORT, "pinned": False}
    if models:
        metadata["models"] = models
    return README.format(metadata=yaml.safe_dump(metadata, sort_keys=False), title=metadata["title"])
