"""`PuMerCard` holds what is known about a checkpoint, and renders it as a model card.

A card is two files: `results.json` has the facts, and `README.md` is rendered from them. So no number in a card is
typed by hand. Unknown facts are left out. Both files are published, so they name folders and files of this machine by
the last part of their paths ([`PuMerCard.published`]).
"""

import json
import re
import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..bench.decoder_report import DecoderReport
from ..data.task import CARD_MODEL, Task
from ..data.tasks import TASKS, find_task
from ..models.decoders.family import DecoderFamily
from ..models.families import DECODERS, FAMILIES, Family
from ..reading import read_json, read_object
from ..reducers import PlainSchedule, Schedule, TokenReducer, parse_reduction, reducer_class
from ..reducers.keeping import KEPT
from ..release import install_commands, needs_wheel
from ..results import IMAGE_TOKENS, Elastic, Evaluation, Report, SeedRun
from .decoders import (
    PIPELINE_TAG,
    decoder_example,
    has_chat_template,
    published_bench,
    read_bench,
    row_of,
    speed_section,
)
from .decoders import PLACES as DECODER_PLACES
from .sources import (
    is_hub_id,
    launch_command,
    may_be_hub_id,
    public_name,
    public_words,
    published_command,
    published_environment,
    without_paths,
)
from .tables import elastic_table, results_table, tokens_table, training_table

CARD_NAME, FACTS_NAME, PICTURE_NAME, CURVE_NAME = "README.md", "results.json", "reduction.png", "speeds.png"
PLACES = {
    "tower": "layers of its image encoder",
    "inputs": "steps before its first layer",
    "layers": "some layers",
}
"""In words, the part of a model that reduces tokens at a site."""
TEMPLATE = Path(__file__).parent / "card.md.jinja"

OLD_UNIT = "unit"
"""The field with the unit of all metrics, in cards from before reports said the unit of each metric."""
MAX_NAME = 96
"""How many characters a name on the Hub may have."""


@dataclass
class PuMerCard:
    """The facts of a card. Fill in what you know. Fields that are None are left out.

    Raises:
        ValueError: a value is not allowed; the message names the field.
    """

    name: str
    """The name of the checkpoint. It is the heading of the card."""
    backbone: str
    """The name of its family: `"vilt"` or `"meter"`, or that of a decoder, such as `"llava"`."""
    task: str | None = None
    """`"vqa"`, `"nlvr2"`, `"snli_ve"` or `"retrieval"`; None for a backbone without a head, and for a decoder."""
    role: str = "student"
    """`"student"`, the model that reduces tokens, or `"teacher"`, the unreduced one."""
    repo_id: str | None = None
    """The id of the model on the Hub."""
    base_model: str | None = None
    """The model that the training started from, or the stock model of a decoder: an id on the Hub, or a folder."""
    teacher: str | None = None
    """The model that it was distilled from: an id on the Hub, or a folder."""
    dataset: dict[str, Any] | None = None
    """`name`, and if they are known `id` (on the Hub, or a folder), `config`, `revision`, `split` (of the results),
    and other fields."""
    reduction: PlainSchedule | None = None
    """The schedule, as `config.reduction` holds it."""
    training: dict[str, Any] = field(default_factory=dict)
    """Training arguments."""
    recipe: str | None = None
    """The recipe file."""
    launch: str | None = None
    """The command that trains the model, if it has not been trained. If it has, `report` has the command."""
    license: str | None = None
    """The Hub's name of the licence, such as `"apache-2.0"`."""
    report: Report = field(default_factory=Report)
    """What was measured, as a recipe's `results.json` holds it. It is empty for a model that has not been trained."""
    seed: int | None = None
    """The seed of this model, if it is one of several students of the report. None: the card is about all of them."""
    bench: DecoderReport | None = None
    """What `pumer-hf bench` has measured of a decoder."""

    def __post_init__(self) -> None:
        families = (*FAMILIES, *DECODERS)
        for name, allowed in (("backbone", families), ("task", (*TASKS, None)), ("role", ("student", "teacher"))):
            if getattr(self, name) not in allowed:
                choices = ", ".join(str(choice) for choice in allowed)
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {choices}")
        if not isinstance(self.report, Report):
            raise ValueError("report: give a Report; Report.from_dict makes one of what results.json holds")
        if self.is_decoder and self.task is not None:
            raise ValueError(f"task={self.task!r}: a decoder answers in words and has no head: leave it out")
        if self.seed is not None and self.run is None:
            raise ValueError(f"seed={self.seed}: the report has no such student: leave it out")
        if self.bench is not None:
            self._check_bench(self.bench)

    def _check_bench(self, bench: DecoderReport) -> None:
        """Raise `ValueError` if the speed was measured of another model than that of the card."""
        if bench.family != self.backbone:
            raise ValueError(f"bench.family={bench.family!r}: the model is of {self.backbone!r}: measure this model")
        if parse_reduction(bench.reduction) != self.schedule:
            raise ValueError(
                f"bench.reduction={bench.reduction}: the model has {self.reduction}: measure it with its own schedule"
            )

    @classmethod
    def load(cls, folder: str | Path) -> "PuMerCard":
        """Read the facts that [`save`] wrote into a folder."""
        path = Path(folder) / FACTS_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: a recipe writes it, and `pumer-hf card FOLDER --recipe` writes it too"
            )
        facts = read_json(path)
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(facts) - {*known, OLD_UNIT}) if isinstance(facts, dict) else ["(no object)"]
        if unknown or "name" not in facts or "backbone" not in facts:
            wrong = ", ".join(unknown) or "name or backbone is missing"
            raise ValueError(
                f"{path} does not hold the facts of one model, which are {', '.join(known)}: {wrong}. If these are "
                f"the results of a whole run, give its student folder, or `--recipe` and `--results`"
            )
        try:
            report = Report.from_dict(facts.get("report", {}), unit=facts.pop(OLD_UNIT, ""))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: its `report` holds no results of a run: {error}") from error
        bench = None if facts.get("bench") is None else read_bench(facts["bench"], str(path))
        return cls(**{**facts, "report": report, "bench": bench})

    @classmethod
    def from_checkpoint(cls, folder: str | Path) -> "PuMerCard":
        """Make a card from the config of a saved model. It says nothing about the training.

        Raises:
            ValueError: the model is of no known family, or a decoder of transformers' own class.
        """
        config = read_object(Path(folder) / "config.json")
        family = row_of(config, f"{folder}/config.json")
        architecture = (config.get("architectures") or [""])[0]
        task, reduction = find_task(config.get("task"), architecture), config.get("reduction")
        return cls(
            name=Path(folder).resolve().name,
            backbone=family.name,
            task=None if task is None else task.name,
            role="teacher" if parse_reduction(reduction) is None else "student",
            reduction=reduction,
        )

    def published(self) -> "PuMerCard":
        """Return the same facts for the public. Folders and files of this machine have only the last part of their
        paths.
        """
        return replace(
            self,
            base_model=public_name(self.base_model) if self.base_model else None,
            teacher=public_name(self.teacher) if self.teacher else None,
            recipe=public_name(self.recipe) if self.recipe else None,
            launch=shlex.join(public_words(shlex.split(self.launch))) if self.launch else None,
            dataset=None if self.dataset is None else published_dataset(self.dataset),
            training=without_paths(self.training),
            report=published_report(self.report),
            bench=self.bench and published_bench(self.bench),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All facts that are known and may be published, as plain JSON types."""
        shown = self.published()
        values = {item.name: getattr(shown, item.name) for item in fields(shown)} | {"report": shown.report.to_dict()}
        values["bench"] = shown.bench and shown.bench.to_dict()
        return {name: value for name, value in values.items() if value is not None and value != {}}

    @property
    def row(self) -> Family | DecoderFamily:
        """The row of its family."""
        return FAMILIES.get(self.backbone) or DECODERS[self.backbone]

    @property
    def is_decoder(self) -> bool:
        """Whether the model is a decoder."""
        return self.backbone in DECODERS

    @property
    def schedule(self) -> Schedule | None:
        """The parsed `reduction`."""
        return parse_reduction(self.reduction)

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of the model itself, or the means of several; None if there is none."""
        return self.report.evaluations.get(self.role) if self.run is None else self.run.student

    @property
    def run(self) -> SeedRun | None:
        """What was measured of this model, if it is one of several students."""
        return next((run for run in self.report.seeds if run.seed == self.seed), None)

    @property
    def elastic(self) -> Elastic | None:
        """The results at several speeds, if the model was trained for them. Of several students the first has them."""
        is_later = self.run is not None and self.run != self.report.seeds[0]
        return self.report.elastic if self.role == "student" and not is_later else None

    @property
    def has_report(self) -> bool:
        """Whether anything is known about a run."""
        return self.report != Report()

    @property
    def task_row(self) -> Task | None:
        """The task of the model; None for a model without a head."""
        return None if self.task is None else TASKS[self.task]

    @property
    def model_id(self) -> str:
        """The id of the model in the examples."""
        return self.repo_id or f"user/{self.name}"

    def save(self, folder: str | Path) -> None:
        """Write `README.md` and `results.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in self.files(folder).items():
            (folder / name).write_text(text, encoding="utf-8")

    def files(self, folder: Path) -> dict[str, str]:
        """Return the content of the two files by name.

        The card shows the pictures that the folder has. If it has a chat template, the example of a decoder is a chat.
        """
        facts = json.dumps(self.facts, indent=2, ensure_ascii=False)
        pictures = ((folder / name).is_file() for name in (PICTURE_NAME, CURVE_NAME))
        text = self.render(*pictures, with_chat=has_chat_template(folder))
        return {CARD_NAME: text, FACTS_NAME: facts + "\n"}

    def render(self, has_picture: bool = False, has_curve: bool = False, *, with_chat: bool = True) -> str:
        """Return the text of the card, with the metadata for the Hub.

        Args:
            has_picture: whether the card shows the picture of the reduction.
            has_curve: whether the card shows the picture of several speeds.
            with_chat: whether the example of a decoder is a chat. It needs a processor with a chat template.
        """
        shown = self.published()
        card = ModelCard.from_template(
            shown.metadata(),
            template_path=str(TEMPLATE),
            card=shown,
            has_picture=has_picture,
            picture=PICTURE_NAME,
            has_curve=has_curve,
            curve=CURVE_NAME,
            family_title=shown.row.title,
            task_title=self.task_row.title if self.task_row else None,
            example=shown._example(with_chat),
            methods=shown._methods(),
            places=DECODER_PLACES if shown.is_decoder else PLACES,
            reduction_json=json.dumps(shown.schedule and shown.schedule.to_dict(), indent=2),
            results_table=results_table(shown.report, shown.role, shown.run),
            elastic_table=shown.elastic and elastic_table(shown.elastic),
            tokens_table=tokens_table(shown.report, shown.role),
            training_table=training_table(shown.training),
            speed=shown.bench and speed_section(shown.bench),
            baselines=", ".join(f"{name.replace('_', ' ')} {score}" for name, score in shown.report.baselines.items()),
            machine=shown.report.environment.machine_name,
            sources=shown._sources(),
            install=install_commands(shown.repo_id),
            carries_wheel=needs_wheel(),
        )
        return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"

    def metadata(self) -> ModelCardData:
        """Return the metadata, with the results in the form that the Hub's leaderboards read (`model-index`)."""
        results = self._eval_results()
        metrics = self.evaluation.metrics if self.evaluation else {}
        names = [name for name in metrics if name not in IMAGE_TOKENS]
        base = self.teacher if is_hub_id(self.teacher) else self.base_model
        dataset_id = (self.dataset or {}).get("id")
        return ModelCardData(
            library_name="transformers",
            license=self.license,
            base_model=base if is_hub_id(base) else None,
            datasets=[dataset_id] if dataset_id else None,
            metrics=names or None,
            pipeline_tag=PIPELINE_TAG if self.is_decoder else self.task_row.pipeline_tag if self.task_row else None,
            tags=[self.backbone, "pumer", *self._reduction_tags()],
            model_name=self.name if results else None,
            eval_results=results or None,
        )

    def _example(self, with_chat: bool) -> str | None:
        """Return the code that uses the model; None for an encoder without a head."""
        if self.is_decoder:
            return decoder_example(self.model_id, with_chat)
        return self.task_row.card_example.replace(CARD_MODEL, self.model_id) if self.task_row else None

    def _methods(self) -> dict[str, type[TokenReducer]]:
        """Return the classes of the methods that reduce tokens, by site."""
        return {part.site: reducer_class(part) for part in (self.schedule.parts if self.schedule else ())}

    def _reduction_tags(self) -> list[str]:
        """Return tags that say what the methods do to tokens. The names of their ratios show it."""
        names: list[str] = []
        for part in self.schedule.parts if self.schedule else ():
            own = [name for name in part.ratios if name not in KEPT] or ["keep_ratio"]
            names += [*own, *(["merge_rest"] if getattr(part, "merge_rest", False) else [])]
        kinds = {"token-pruning": ("prune", "keep"), "token-merging": ("merge",)}
        return [tag for tag, words in kinds.items() if any(word in name for name in names for word in words)]

    def _eval_results(self) -> list[EvalResult]:
        dataset, task = self.dataset or {}, self.task_row
        if task is None or not dataset.get("name") or self.evaluation is None:
            return []
        return [
            EvalResult(
                task_type=task.hub_type,
                task_name=task.title.capitalize(),
                dataset_type=dataset.get("id") or dataset_slug(dataset["name"]),
                dataset_name=dataset["name"],
                dataset_config=dataset.get("config"),
                dataset_split=dataset.get("split"),
                dataset_revision=dataset.get("revision"),
                metric_type=name,
                metric_name=name.replace("_", " ").capitalize(),
                metric_value=metric.rounded,
            )
            for name, metric in self.evaluation.metrics.items()
            if name not in IMAGE_TOKENS
        ]

    def _sources(self) -> list[str]:
        """Return where the model comes from, one line for each source."""
        dataset = self.dataset or {}
        command = launch_command(self.report.environment, f"train_{self.task}.py") or self.launch
        details = {name: value for name, value in dataset.items() if name not in ("name", "id", "split")}
        described = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in details.items())
        found = {
            "Base model": link(self.base_model),
            "Teacher": link(self.teacher),
            "Data": "" if not dataset else (link(dataset.get("id")) or dataset["name"]),
            "Recipe": f"`{self.recipe}`" if self.recipe else "",
            "Command": f"`{command}`" if command else "",
        }
        if found["Data"] and described:
            found["Data"] += f" ({described})"
        return [f"{name}: {value}" for name, value in found.items() if value]


def published_report(report: Report) -> Report:
    """Return a report for the public. Its commands name files by the last part of their paths."""
    environment = published_environment(report.environment)
    seeds = tuple(replace(run, command=published_command(run.command)) for run in report.seeds)
    return replace(report, environment=environment, seeds=seeds, other=without_paths(report.other))


def published_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the `dataset` of a card for the public: without an `id` that is a folder."""
    facts = without_paths(dataset)
    source = dataset.get("id")
    if source and not may_be_hub_id(source):
        del facts["id"]
        facts["name"] = public_name(source) if dataset.get("name") in (None, source) else facts["name"]
    return facts


def dataset_slug(name: str) -> str:
    """Turn the name of data that are not on the Hub into a name that the Hub allows for data sets."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_NAME].rstrip("-") or "unnamed"


def link(source: str | None) -> str:
    """Return a link to the Hub, or the name of a folder."""
    if not source:
        return ""
    return f"[{source}](https://huggingface.co/{source})" if is_hub_id(source) else f"`{source}`"
