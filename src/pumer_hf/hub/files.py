"""Finds the files of a folder that a user of the model needs, and checks that none is missing."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .. import remote_code
from ..reading import check_model_files, read_json, read_object
from ..release import PACKAGE, WHEELS, install_commands, needs_wheel, wrong_installs
from ..wheel import make_wheel
from .card import CARD_NAME, FACTS_NAME, PuMerCard
from .decoders import CHAT_TEMPLATES, PROCESSOR, row_of
from .sources import is_absolute, without_path_keys

WEIGHTS = ("model.safetensors", "model-*.safetensors")
INDEX = "model.safetensors.index.json"
MORE_TEMPLATES = "additional_chat_templates"
"""The folder of a processor with further chat templates, beside the one in `chat_template.jinja`."""
PUBLISHED = (
    "config.json",
    "generation_config.json",
    *WEIGHTS,
    INDEX,
    PROCESSOR,
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    *CHAT_TEMPLATES,
    f"{MORE_TEMPLATES}/*.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    CARD_NAME,
    FACTS_NAME,
    "*.png",
    "LICENSE*",
)
"""The files of a folder that a push publishes. Checkpoints, optimizer states and pickles are not among them."""
CONFIGS = {
    "config.json",
    PROCESSOR,
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
}
STALE = (*WEIGHTS, INDEX, "pytorch_model*.bin*")
"""Old weights in a repository, which a push replaces. If they stayed, they could be loaded instead of the new ones."""
REPLACED = (*STALE, WHEELS)
"""The files that a push removes from a repository, unless it pushes a file of the same name."""


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder: those to publish, and those that are left out."""

    published: dict[str, Path | bytes]
    """The files by their name in the repository: the path of a file, or the content of a file that the push makes."""
    left_out: tuple[str, ...]
    replaced: tuple[str, ...] = REPLACED
    """Patterns of the files that the push removes from the repository, if it publishes none of the same name."""

    def listing(self) -> str:
        """Return what a dry run prints: a line per file, with its size."""
        lines = [f"{_size(content):>12,} B  {name}" for name, content in self.published.items()]
        if self.left_out:
            lines.append(f"left out: {', '.join(self.left_out)}")
        return "\n".join(lines)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a file name matches one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def remove_stale_weights(folder: Path, written: Collection[str]) -> None:
    """Remove old weights from a folder: those that are not in `written`. A folder that does not exist is no error."""
    for path in folder.glob("*"):
        if matches(path.name, STALE) and path.name not in written:
            path.unlink()


def published_files(folder: str | Path, repo_id: str) -> FolderFiles:
    """Return the files to push from a folder that `save_pretrained` wrote.

    The card and the remote code are among them. If pip finds this package nowhere else, a wheel of it is too.

    Raises:
        ValueError, FileNotFoundError: the folder does not hold a complete PuMer model; the message says what to do.
        ImportError: this package is not installed, so no wheel of it can be made.
    """
    folder = Path(folder)
    config = check_folder(folder)
    paths = [*folder.iterdir(), *(folder / MORE_TEMPLATES).glob("*")]
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.name != MORE_TEMPLATES)
    published: dict[str, Path | bytes] = {
        name: folder / name for name in names if (folder / name).is_file() and matches(name, PUBLISHED)
    }
    config_class = row_of(config, f"{folder}/config.json").config_class.__name__
    published[remote_code.FILE_NAME] = remote_code.source(config_class, repo_id).encode()
    if "auto_map" not in config:
        published |= _with_auto_map(folder, config)
    published |= _without_origins(published)
    published |= card_files(folder, repo_id)
    if needs_wheel():
        name, content = make_wheel()
        published[name] = content
    return FolderFiles(dict(sorted(published.items())), tuple(name for name in names if name not in published))


def card_files(folder: Path, repo_id: str) -> dict[str, bytes]:
    """Return the files of the card to push, whose examples name the repository.

    If somebody has edited the card, it is pushed as it is, and only the file of its facts is made.

    Raises:
        ValueError: an edited card names a path of this machine, or its commands do not install this package.
    """
    written = (folder / CARD_NAME).read_text(encoding="utf-8") if (folder / CARD_NAME).is_file() else None
    has_facts = (folder / FACTS_NAME).is_file()
    if written is not None and not has_facts:
        check_installs(folder / CARD_NAME, written, repo_id)
        return {}
    card = PuMerCard.load(folder) if has_facts else PuMerCard.from_checkpoint(folder)
    if written not in (None, card.files(folder)[CARD_NAME]):
        check_no_paths(folder / CARD_NAME, str(written), read_object(folder / FACTS_NAME))
        check_installs(folder / CARD_NAME, str(written), repo_id)
        return {FACTS_NAME: card.files(folder)[FACTS_NAME].encode()}
    card.repo_id = repo_id
    return {name: text.encode() for name, text in card.files(folder).items()}


def check_no_paths(path: Path, text: str, facts: Any) -> None:
    """Raise `ValueError` if a card contains a path of this machine that is also in its `facts`.

    Such a card was edited by somebody, or written by an older version.
    """
    words = re.split(r'[\s"\'`=]+', json.dumps(facts, ensure_ascii=False))
    named = next((word for word in words if len(word) > 1 and is_absolute(word) and word in text), None)
    if named is not None:
        raise ValueError(
            f"{path} names {named}, a path of this machine: take it out, or write the card anew with "
            f"`pumer-hf card {path.parent}`"
        )


def check_installs(path: Path, text: str, repo_id: str) -> None:
    """Raise `ValueError` if the commands in a card do not install this package for users of the Hub.

    Such a card was edited by somebody, or written by an older version.
    """
    wrong = wrong_installs(text, repo_id)
    if wrong:
        raise ValueError(
            f"{path} says `{wrong[0]}`, which does not install {PACKAGE} for those who find {repo_id} on the Hub: "
            f"replace it by `{'` and `'.join(install_commands(repo_id))}`, or write the card anew with "
            f"`pumer-hf card {path.parent}`"
        )


def check_folder(folder: Path) -> dict[str, Any]:
    """Return the config of a folder with a complete model.

    Raises:
        ValueError, FileNotFoundError: the model is not complete, or is not ours; the message says what to do.
    """
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder}/adapter_config.json: this is an adapter, not a whole model; save what `merge_and_unload()` "
            "returns in a folder of its own, and push that"
        )
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}/config.json is missing: give a folder that `save_pretrained` wrote")
    check_model_files(folder)
    config = read_object(folder / "config.json")
    kind = config.get("model_type")
    if kind != row_of(config, f"{folder}/config.json").config_class.model_type:
        raise ValueError(f"{folder}/config.json: model_type={kind!r} is no PuMer model: `pumer-hf convert` makes one")
    if (folder / INDEX).is_file():
        weight_map = read_object(folder / INDEX)["weight_map"]
        missing = sorted(name for name in set(weight_map.values()) if not (folder / name).is_file())
        if missing:
            raise FileNotFoundError(f"{folder}: {', '.join(missing)} is missing, which {INDEX} names: save it anew")
    elif not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{folder}/model.safetensors is missing: weights are published as safetensors only; load the model and "
            f"`save_pretrained` it"
        )
    if not (folder / PROCESSOR).is_file():
        raise FileNotFoundError(
            f"{folder}/{PROCESSOR} is missing, and without a processor nobody can use the model: "
            f"`processor.save_pretrained({str(folder)!r})`, or give the trainer a processing_class"
        )
    return config


def _with_auto_map(folder: Path, config: dict[str, Any]) -> dict[str, Path | bytes]:
    """Return configs that point to the remote code, for a folder from before there was remote code."""
    config_class = row_of(config, f"{folder}/config.json").config_class.__name__
    config = config | {"auto_map": remote_code.config_auto_map(config_class, config.get("architectures"))}
    made: dict[str, Path | bytes] = {"config.json": _json(config)}
    processor = read_json(folder / PROCESSOR)
    auto_map = remote_code.auto_map([processor.get("processor_class")])
    if auto_map:  # the processor is a class of ours
        made[PROCESSOR] = _json(processor | {"auto_map": auto_map})
    return made


def _without_origins(published: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return new contents for config files that name a folder of this machine. The new ones do not name it."""
    made: dict[str, Path | bytes] = {}
    for name in CONFIGS & published.keys():
        content = published[name]
        config = json.loads(content) if isinstance(content, bytes) else read_json(content)
        if config != without_path_keys(config):
            made[name] = _json(without_path_keys(config))
    return made


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
