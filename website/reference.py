"""The pages of the API reference: which modules stand on which page."""

import inspect
import re
from dataclasses import dataclass

import pumer_hf
from pumer_hf.results import markdown_table

from . import ROOT
from .links import placed


@dataclass(frozen=True)
class Area:
    """A page of the reference.

    Args:
        title: the title of the page.
        about: a sentence about it.
        modules: its modules, in order, without `pumer_hf.`.
    """

    title: str
    about: str
    modules: tuple[str, ...]


AREAS = {
    "models": Area(
        "Models",
        "ViLT and METER with reduction, the families, and how reduction goes into a stock decoder model.",
        (
            "models.encoders.vilt.modeling",
            "models.encoders.vilt.configuration",
            "models.encoders.meter.modeling",
            "models.encoders.meter.configuration",
            "models.encoders.meter.processing",
            "models.encoders.base",
            "models.encoders.outputs",
            "models.reduced",
            "models.reducible",
            "models.reduction",
            "models.families",
            "models.decoders.family",
            "models.decoders.modeling",
            "models.decoders.outputs",
            "models.scorers",
            "models.loading",
            "pipeline",
            "answering",
        ),
    ),
    "schedules": Area(
        "Schedules and configuration",
        "A schedule says which method reduces, where, and how much. The config of a model holds it.",
        ("configuration", "reducers", "reducers.schedule", "reducers.budget", "reducers.base", "models.budget"),
    ),
    "reducers": Area(
        "Methods",
        "The config and the class of each method. The pages about the methods explain their fields.",
        (
            "reducers.pumer",
            "reducers.pumer_inputs",
            "reducers.tip",
            "reducers.tip_inputs",
            "reducers.tome",
            "reducers.dynamicvit",
            "reducers.fastv",
            "reducers.pyramid",
            "reducers.random",
            "reducers.grounded",
            "reducers.grid",
            "reducers.diverse",
            "reducers.relevant_diverse",
            "reducers.lookahead",
            "reducers.pruning",
            "reducers.keeping",
            "reducers.scoring",
            "reducers.scorer",
            "reducers.choice",
            "reducers.mass",
            "grounding",
        ),
    ),
    "ops": Area(
        "Operations and tokens",
        "The algorithm as pure functions of tensors, and the tokens that a reducer takes and returns.",
        ("ops", "tokens", "flops"),
    ),
    "inputs": Area(
        "Inputs",
        "From images and texts to tensors, exactly as a checkpoint was trained.",
        ("inputs", "encoding", "images", "unread"),
    ),
    "training": Area(
        "Training",
        "The trainer, its arguments, losses and callbacks, for your own script.",
        (
            "training.arguments",
            "training.trainer",
            "training.losses",
            "training.callbacks",
            "training.scorer",
            "training.answers",
            "training.teacher_logits",
            "training.parameters",
            "recipes.recipe",
            "recipes.runner",
        ),
    ),
    "data": Area(
        "Data, tasks and metrics",
        "How data are read, what a task is, and how answers are scored.",
        (
            "data.task",
            "data.tasks",
            "data.arguments",
            "data.collator",
            "data.vqa",
            "data.nlvr2",
            "data.snli_ve",
            "data.retrieval",
            "data.chat",
            "data.scenes.digits",
            "metrics.vqa",
            "metrics.classification",
            "metrics.retrieval",
            "example",
        ),
    ),
    "bench": Area(
        "Benchmarks",
        "Throughput, latency, memory and multiply-adds, beside those of the unreduced model.",
        (
            "bench.contenders",
            "bench.comparison",
            "bench.report",
            "bench.cost",
            "bench.throughput",
            "bench.decoders",
            "bench.decoder_report",
        ),
    ),
    "tuning": Area(
        "Tuning",
        "The search for a schedule that has a given speed.",
        ("tuning.tuner", "tuning.options", "tuning.report", "tuning.finder", "tuning.candidates", "tuning.curves"),
    ),
    "explain": Area(
        "Explanations and measures",
        "What a model keeps: pictures, and figures that compare it with random choices.",
        (
            "explain.maps",
            "explain.pictures",
            "explain.panels",
            "explain.counts",
            "explain.report",
            "measures.alignment",
            "measures.faithfulness",
            "measures.measuring",
            "measures.report",
            "measures.vqa_hat",
        ),
    ),
    "export": Area("Export", "Models as ONNX files.", ("export.checkpoint", "export.onnx_file", "export.report")),
    "hub": Area(
        "Hub and converters",
        "Model cards, pushes, Spaces, and older checkpoints.",
        ("hub.card", "hub.push", "hub.files", "demo.page", "demo.space", "convert", "release"),
    ),
    "results": Area(
        "Results",
        "What a measurement is: its figures, its machine and its command.",
        ("results", "results.report", "results.metrics", "results.cost", "results.environment", "results.tables"),
    ),
}
"""The pages, by name."""

MODULES = {f"pumer_hf.{module}": name for name, area in AREAS.items() for module in area.modules}
"""From a module to the name of its page."""


def page(area: Area) -> str:
    """Return a page, with a directive for each module."""
    directives = "\n\n".join(f"::: pumer_hf.{module}" for module in area.modules)
    return f"# {area.title}\n\n{area.about}\n\n{directives}\n"


def index() -> str:
    """Return the page with the list of areas, and with the names that `pumer_hf` itself has."""
    lines = "\n".join(f"- [{area.title}]({name}.md): {area.about}" for name, area in AREAS.items())
    rows = [["name", "what it is"], *([f"[`{name}`](pumer_hf)", summary(name)] for name in sorted(pumer_hf.__all__))]
    return f"""# API reference

{lines}

## What `pumer_hf` itself has

Most programs need no more than these names. Each is described in the module that it comes from.

{markdown_table(rows)}
"""


def summary(name: str) -> str:
    """Return the first sentence of the docstring of a public name."""
    found = getattr(pumer_hf, name)
    paragraph = (inspect.getdoc(found) or "").split("\n\n")[0]
    sentence = re.split(r"(?<=\.)\s", " ".join(paragraph.split()))[0]
    return placed(sentence, found.__module__)


def pages() -> dict[str, str]:
    """Return all pages of the reference, by their paths in docs/."""
    for module in MODULES:
        path = ROOT / "src" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    return {"reference/index.md": index(), **{f"reference/{name}.md": page(area) for name, area in AREAS.items()}}
