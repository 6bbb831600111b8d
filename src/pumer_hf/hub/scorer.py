"""The card of a scorer that is saved in a folder of its own, and the files of such a folder to push."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..models.decoder_loading import find_decoder
from ..models.families import find_family
from ..models.scorers import SCORER_CONFIG, SCORER_WEIGHTS, ScorerRecord, load_record
from ..reducers.lookahead import layer_words
from ..release import WHEELS, install_commands, needs_wheel
from ..results import ScorerReport
from ..results.scorer import METHOD_WORDS, percent
from ..results.tables import markdown_table
from ..wheel import make_wheel
from .card import CARD_NAME, FACTS_NAME, link
from .files import FolderFiles, check_installs, check_no_paths, matches
from .sources import is_hub_id, public_name, published_environment

PUBLISHED = (SCORER_CONFIG, SCORER_WEIGHTS, CARD_NAME, FACTS_NAME, "*.png", "LICENSE*")
"""The files of such a folder that a push publishes."""


def is_scorer(folder: str | Path) -> bool:
    """Return whether a folder holds a scorer without its model."""
    folder = Path(folder)
    return (folder / SCORER_CONFIG).is_file() and not (folder / "config.json").is_file()


def scorer_files(folder: str | Path, repo_id: str) -> FolderFiles:
    """Return the files to push from a folder with a scorer. Older weights of a model in the repository stay.

    Raises:
        ValueError: the scorer is not complete, or an edited card names a path of this machine or a wrong command.
    """
    folder = Path(folder)
    record, _ = load_record(str(folder), str(folder))
    names = sorted(path.name for path in folder.iterdir())
    published: dict[str, Path | bytes] = {name: folder / name for name in names if matches(name, PUBLISHED)}
    published[SCORER_CONFIG] = _json(published_record(record).to_dict())
    report = load_report(folder)
    if report is not None:
        published[FACTS_NAME] = _json(published_report(report).to_dict())
    card = folder / CARD_NAME
    written = card.read_text(encoding="utf-8") if card.is_file() else None
    if written in (None, scorer_card(folder)):
        published[CARD_NAME] = scorer_card(folder, repo_id).encode()
    else:
        check_no_paths(card, str(written), [record.to_dict(), report and report.to_dict()])
        check_installs(card, str(written), repo_id)
    if needs_wheel():
        name, content = make_wheel()
        published[name] = content
    left_out = tuple(name for name in names if name not in published)
    return FolderFiles(dict(sorted(published.items())), left_out, replaced=(WHEELS,))


def save_scorer_card(folder: str | Path) -> None:
    """Write the card of a scorer into its folder."""
    (Path(folder) / CARD_NAME).write_text(scorer_card(folder), encoding="utf-8")


def scorer_card(folder: str | Path, repo_id: str | None = None) -> str:
    """Return the card of a scorer: its record, the table of its results if there is one, and how to load it.

    Args:
        folder: the folder of the scorer.
        repo_id: its id on the Hub.
    """
    folder = Path(folder)
    name = (repo_id or folder.resolve().name).split("/")[-1]
    record = published_record(load_record(str(folder), str(folder))[0])
    report = load_report(folder)
    decoder = find_decoder({"model_type": record.base_type})
    family = decoder or find_family(record.base_type)
    metadata = ModelCardData(
        library_name="transformers",
        base_model=record.base if is_hub_id(record.base) else None,
        base_model_relation="adapter" if is_hub_id(record.base) else None,
        tags=[family.name if family else record.base_type, "pumer", "lookahead", "token-pruning"],
    )
    part = record.config
    layer = layer_words(part.target_layer)
    dropped = "before the layers see them" if decoder is None else "before the decoder sees them"
    changed = "later by `model.set_reduction`" if decoder is None else "in each `with` block"
    source = repo_id or f"user/{name}"
    sections = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {name}",
        f"A scorer of {family.title if family else record.base_type} for the method `lookahead` of pumer-hf: it "
        f"predicts how much {layer} will attend to each image token, and the other tokens are dropped {dropped}. "
        f"The base model stays as it is: {link(record.base)}. A scorer fits no other weights.",
        *(["## Answers kept", *_results(report, decoder is not None)] if report is not None else []),
        "## Use it",
        *(["PyPI does not have the package pumer-hf yet, so it lies here."] if needs_wheel() and repo_id else []),
        "\n".join(["```sh", *install_commands(repo_id), "```"]),
        _example(record, source) if decoder is None else _decoder_example(record, source),
        f"`keep_ratio` may be changed without training, here or {changed}.",
        "## Training",
        f"- Data: {record.trained_on}. No answers were used.\n- Steps: {record.steps:,}\n"
        f"- Form: {part.form}, rank {part.rank}; image tokens of width {record.image_width}, words of width "
        f"{record.text_width}",
    ]
    return "\n\n".join(sections) + "\n"


def load_report(folder: Path) -> ScorerReport | None:
    """Read what the training of a scorer has measured; None if its folder does not say it."""
    path = folder / FACTS_NAME
    return ScorerReport.load(path) if path.is_file() else None


def published_record(record: ScorerRecord) -> ScorerRecord:
    """Return a record for the public. It names a folder by the last part of its path."""
    return replace(record, base=public_name(record.base), trained_on=_public_words(record.trained_on))


def published_report(report: ScorerReport) -> ScorerReport:
    """Return results for the public. Their command names files by the last part of their paths."""
    return replace(report, environment=published_environment(report.environment))


def _results(report: ScorerReport, of_decoder: bool) -> list[str]:
    """Return the table of the answers kept, and how it was measured."""
    methods = list(dict.fromkeys(name for row in report.rows for name in row.methods))
    rows = [["patches kept", *(METHOD_WORDS.get(name, name) for name in methods), "speed"]]
    for row in report.rows:
        shares = [percent(row.methods.get(name)) for name in methods]
        rows.append([f"{row.kept} ({row.num_patches})", *shares, "" if row.speed is None else f"{row.speed:.2f}x"])
    machine = f" Measured on {report.environment.machine_name}." if report.environment.machine_name else ""
    same = "that begin with the same greedy tokens" if of_decoder else "that stay the same"
    measured = (
        f"Answers of the unreduced model {same}, on {report.examples:,} examples that were held out; "
        f"speed against the unreduced model at batch {report.batch_size}.{machine}"
    )
    return [markdown_table(rows), measured, *report.losses()]


def _example(record: ScorerRecord, source: str) -> str:
    """Return the lines of Python that load an encoder with the scorer."""
    return "\n".join(
        [
            "```python",
            "from pumer_hf.models.loading import load_checkpoint",
            "",
            f"reduction = {_shown_part(record, source)}",
            f"model, processor = load_checkpoint({json.dumps(record.base)}, reduction)",
            "```",
        ]
    )


def _decoder_example(record: ScorerRecord, source: str) -> str:
    """Return the lines of Python that use the scorer with a decoder of transformers' own class."""
    return "\n".join(
        [
            "```python",
            "from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline",
            "import pumer_hf",
            "",
            f"reduction = {_shown_part(record, source)}",
            f"model = AutoModelForImageTextToText.from_pretrained({json.dumps(record.base)})",
            f"processor = AutoProcessor.from_pretrained({json.dumps(record.base)})",
            'prompt = processor.image_token + "What is in the picture?"  # or a chat, if the processor has a template',
            'ask = pipeline("image-text-to-text", model=model, processor=processor)',
            "with pumer_hf.reduced(model, reduction):",
            '    print(ask(images="picture.png", text=prompt, max_new_tokens=64))',
            "```",
        ]
    )


def _shown_part(record: ScorerRecord, source: str) -> str:
    """Return the schedule that names the scorer, as Python code."""
    part = record.config
    shown: dict[str, Any] = {"method": part.method, "site": part.site, "weights": source}
    shown |= {"layers": list(part.layers)} if part.layers else {}
    shown |= {name: value for name, value in part.to_dict().items() if name in (*part.amounts, "min_keep", "max_keep")}
    return json.dumps(shown)


def _public_words(text: str) -> str:
    """Return a text in which each absolute path is replaced by its last part."""
    return " ".join(public_name(word) if word.startswith(("/", "~")) else word for word in text.split(" "))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
