"""A family and a task that this package does not know: each is added by one row, and everything runs with them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from PIL import Image
from transformers import AutoModel, AutoModelForSequenceClassification, AutoProcessor, ViltImageProcessorPil
from transformers import ViltProcessor as StockProcessor

from pumer_hf import preset
from pumer_hf.bench.full_size import paper_model
from pumer_hf.cli import main
from pumer_hf.data.arguments import DataArguments
from pumer_hf.data.classes import check_labels, class_baselines, class_metrics
from pumer_hf.data.collator import ClassCollator
from pumer_hf.data.scenes.statements import hypothesis_scenes
from pumer_hf.data.task import CARD_MODEL, Task, load_splits
from pumer_hf.data.tasks import TASKS, register_task
from pumer_hf.hub.card import PuMerCard
from pumer_hf.models.encoders.heads import ClassifierHead, classification_loss
from pumer_hf.models.encoders.vilt import PuMerViltConfig, PuMerViltModel, PuMerViltPreTrainedModel
from pumer_hf.models.encoders.vilt.processing import build_bert_tokenizer
from pumer_hf.models.families import FAMILIES, Family, register_family
from pumer_hf.recipes.cards import recipe_file_card
from pumer_hf.recipes.evaluation import evaluate_recipe
from pumer_hf.recipes.runner import run_recipe
from pumer_hf.reducers.pumer import PuMerReductionConfig


class ToyConfig(PuMerViltConfig):
    model_type = "toy"


class ToyPreTrainedModel(PuMerViltPreTrainedModel):
    config: ToyConfig
    base_model_prefix = "toy"


class ToyModel(ToyPreTrainedModel, PuMerViltModel):
    config: ToyConfig


class ToyForClaims(ToyPreTrainedModel, ClassifierHead):
    backbone_class = ToyModel
    criterion = staticmethod(classification_loss)


def new_processor(config, texts, max_text_length, image_mean, image_std):
    tokenizer = build_bert_tokenizer(texts, max_text_length)
    config.vocab_size, config.max_position_embeddings = len(tokenizer), max_text_length
    images = ViltImageProcessorPil(size={"shortest_edge": config.image_size}, size_divisor=config.image_size)
    return StockProcessor(images, tokenizer)


TOY = Family(
    name="toy",
    title="Toy-ViLT",
    config_class=ToyConfig,
    base_class=ToyModel,
    heads={"claims": ToyForClaims},
    processor_class=StockProcessor,
    new_processor=new_processor,
    patch_size=lambda config: tuple(config.patch_size),
    presets={"claims": PuMerReductionConfig((1,), 0.3, 0.2, 0.2)},
    tokenizer="bert-base-uncased",
    modality_types="embeddings.token_type_embeddings.weight",
)


@dataclass
class ClaimArguments(DataArguments):
    """The `data` block."""


class ClaimCollator(ClassCollator):
    def texts(self, row):
        return row["claim"]


def claim_scenes(split, number):
    rows = hypothesis_scenes(split, number, grid_size=6, num_digits=3, seed=0).rename_column("hypothesis", "claim")
    return rows.map(lambda row: {"label": "right" if row["label"] == "entailment" else "wrong"})


def load_claims(args: ClaimArguments, labels: Sequence[str] | None = None):
    data = load_splits(args, read=None, scenes=claim_scenes, columns={})
    return replace(data, labels=check_labels(labels, ["wrong", "right"]))


CLAIMS = Task(
    name="claims",
    title="checking claims",
    arguments=ClaimArguments,
    load=load_claims,
    collator=ClaimCollator.of,
    texts=lambda dataset: dataset["claim"][:],
    paper_folder="claims",
    scenes_folder="digit_scenes_claims",
    head="claims",
    num_labels=2,
    activation="softmax",
    metrics=class_metrics,
    baselines=class_baselines("claim"),
    hub_type="claim-checking",
    card_example=f'model = "{CARD_MODEL}"  # and a claim',
)

RECIPE = """
task: claims

model:
  backbone: toy
  config:
    hidden_size: 16
    num_hidden_layers: 3
    num_attention_heads: 2
    intermediate_size: 32
    image_size: 48
    patch_size: [8, 12]

reduction:
  method: pumer
  layers: [1]
  prune_ratio: 0.3
  image_merge_ratio: 0.2
  text_merge_ratio: 0.2

data:
  train_scenes: 8
  eval_scenes: 4
  max_text_length: 12

training:
  output_dir: run
  max_steps: 2
  per_device_train_batch_size: 4
  per_device_eval_batch_size: 4
  benchmark_seconds: 0.05
  use_cpu: true
  report_to: none
  disable_tqdm: true
"""


@pytest.fixture(scope="module", autouse=True)
def rows():
    """The two rows, which no test after these sees."""
    register_family(TOY)
    register_task(CLAIMS)
    yield
    del FAMILIES["toy"], TASKS["claims"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder in which the recipe has been trained."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_recipe("claims", ["recipe.yaml"])
    return folder


def student(run):
    return str(run / "run" / "student")


def test_the_recipe_trains_and_measures(run):
    report = json.loads((run / "run" / "results.json").read_text(encoding="utf-8"))
    assert {"teacher", "student"} <= set(report)
    assert report["tokens_per_layer"]["teacher"][0] == [12, 1 + 6 * 4]  # patches of 8 x 12 pixels


def test_the_auto_classes_load_the_model(run):
    assert type(AutoModel.from_pretrained(student(run))) is ToyModel
    assert type(AutoModelForSequenceClassification.from_pretrained(student(run))) is ToyForClaims
    assert type(AutoProcessor.from_pretrained(student(run))) is StockProcessor
    assert "toy" not in (run / "run" / "student" / "modeling_pumer.py").read_text(encoding="utf-8").lower()


def test_the_card_knows_the_family_and_the_task(run):
    card = PuMerCard.load(student(run))
    assert (card.backbone, card.task) == ("toy", "claims")
    text = card.render()
    assert "Toy-ViLT for checking claims. It cuts its tokens" in text
    assert f'model = "{card.model_id}"  # and a claim' in text
    (accuracy,) = card.metadata().eval_results
    assert (accuracy.task_type, accuracy.task_name) == ("claim-checking", "Checking claims")
    assert PuMerCard.from_checkpoint(student(run)).task == "claims"
    assert recipe_file_card(run / "recipe.yaml").task == "claims"


def test_the_benchmark_runs(run, tmp_path):
    arguments = ["--batch-size", "2", "--seconds", "0.05", "--no-memory", "-o", str(tmp_path / "bench.json")]
    assert main(["bench", student(run), *arguments]) == 0
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert report["gflops"]["reduced"] < report["gflops"]["unreduced"]
    assert "stock" not in report["gflops"]


def test_the_benchmark_makes_a_model_of_full_size():
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = paper_model("toy", "claims", image_size=64, **small)
    assert type(model) is ToyForClaims
    assert (model.config.num_labels, model.config.reduction["layers"]) == (2, [1])


def test_the_model_is_explained(run, tmp_path, capsys):
    picture = tmp_path / "scene.png"
    Image.new("RGB", (60, 40), "red").save(picture)
    arguments = ["explain", student(run), str(picture), "there is a red two", "--out", str(tmp_path / "out.png")]
    assert main(arguments) == 0
    assert re.search(r"(right|wrong) \(\d\d\.\d%\)", capsys.readouterr().out)
    assert (tmp_path / "out.png").is_file()


def test_the_model_is_evaluated(run, tmp_path):
    output = tmp_path / "metrics.json"
    evaluate_recipe("", ["claims", str(run / "recipe.yaml"), "--model", student(run), "-o", str(output)])
    report = json.loads(output.read_text(encoding="utf-8"))
    assert (report["task"], report["split"]) == ("claims", "test")
    assert 0 <= report["accuracy"] <= 100


def test_what_the_rows_say_is_used():
    assert preset("toy", "claims")["layers"] == [1]
    with pytest.raises(ValueError, match=r"Toy-ViLT has no head for the task 'vqa': choose one of claims"):
        TOY.model_for("vqa")
    with pytest.raises(ValueError, match="family.name='vilt'"):
        register_family(replace(TOY, name="vilt"))
    with pytest.raises(ValueError, match="task.name='vqa'"):
        register_task(replace(CLAIMS, name="vqa"))
    assert TOY.sites == ("inputs", "layers")


class OtherToyConfig(PuMerViltConfig):
    model_type = "other_toy"


class OtherViltConfig(PuMerViltConfig):
    model_type = "vilt"  # which our ViLT reads too


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config_class": PuMerViltConfig}, "model_type='pumer_vilt': .*ViLT reads"),
        ({"config_class": OtherViltConfig}, "model_type='vilt': .*ViLT reads"),
        ({"stock_type": "vilt"}, "stock_type='vilt': .*ViLT reads"),
        ({"stock_type": "toy"}, "stock_type='toy': .*Toy-ViLT reads"),
    ],
)
def test_a_family_that_would_never_be_found_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        register_family(replace(TOY, name="other", **{"config_class": OtherToyConfig, **changes}))
    assert "other" not in FAMILIES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "coco"}, "task.name='coco': .*'retrieval'"),
        ({"name": "Captions"}, "task.name='Captions': .*'captions'"),
        ({"name": "captions", "head": "captions"}, "task.head='captions': .*claims"),
    ],
)
def test_a_task_that_would_never_be_found_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        register_task(replace(CLAIMS, **changes))
    assert changes["name"] not in TASKS
