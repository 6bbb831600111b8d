"""A trained tiny model goes to a Hub over HTTP and comes back in fresh processes."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from tiny import CHECKPOINT_FILES
from tiny_tasks import CONFIGS
from transformers import dynamic_module_utils

from pumer_hf import DistillationTrainer, DistillationTrainingArguments, remote_code
from pumer_hf.data.vqa import VQA, VqaDataArguments
from pumer_hf.recipes.build import build_teacher
from pumer_hf.recipes.recipe import ModelArguments
from pumer_hf.release import install_commands
from pumer_hf.wheel import make_wheel

REDUCTION = {"method": "pumer", "layers": [0], "prune_ratio": 0.2, "image_merge_ratio": 0.3, "text_merge_ratio": 0.2}
STRATEGIES = {"meter": "every_save", "vilt": "end"}
MADE = {"README.md", "results.json", make_wheel()[0]}
"""What a push makes."""
LOAD = """
{first}
import torch
from transformers import AutoModel, AutoModelForVisualQuestionAnswering, AutoProcessor

for family in ("meter", "vilt"):
    name = f"user/tiny-{{family}}"
    processor = AutoProcessor.from_pretrained(name{trust})
    model = AutoModelForVisualQuestionAnswering.from_pretrained(name{trust})
    base = AutoModel.from_pretrained(name{trust})
    inputs, logits = torch.load(f"{{family}}.pt")
    torch.testing.assert_close(model(**inputs).logits, logits)
    print(type(processor).__name__, type(model).__name__, type(base).__name__)
    model.save_pretrained(f"again-{{family}}")
    processor.save_pretrained(f"again-{{family}}")
"""


def train_and_push(family, data, args):
    """Train a model in the working directory, and leave a batch there with what the model says of it."""
    torch.manual_seed(0)
    arguments = ModelArguments(backbone=family, config=CONFIGS[family])
    model, processor = build_teacher(arguments, data.labels, data.train["question"], 12)
    model.set_reduction(REDUCTION)
    collator = VQA.collator(processor, data, args, False)
    trainer = DistillationTrainer(
        model,
        args=DistillationTrainingArguments(
            f"run-{family}",
            max_steps=2,
            save_steps=1,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            push_to_hub=True,
            hub_model_id=f"user/tiny-{family}",
            hub_strategy=STRATEGIES[family],
        ),
        train_dataset=data.train,
        eval_dataset=data.validation,
        data_collator=collator,
        compute_metrics=VQA.metrics(data.validation, data.labels),
        processing_class=processor,
    )
    trainer.train()
    trainer.evaluate()
    trainer.card.dataset = {"name": "digit scenes", "split": "validation"}
    trainer.push_to_hub()
    example = collator([data.test[0]])
    example.pop("labels")
    torch.save((dict(example), model.eval()(**example).logits), f"{family}.pt")


@pytest.fixture
def client(hub, tmp_path):
    """Runs Python in a fresh process that sees the Hub."""

    def run(code):
        environment = {**os.environ, **hub.environment(tmp_path / "cache")}
        command = [sys.executable, "-W", "error::FutureWarning", "-c", code]
        process = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert process.returncode == 0, process.stderr
        return process

    return run


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
def test_push_a_trained_model_and_load_it(hub, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = VqaDataArguments(train_scenes=4, eval_scenes=2, max_text_length=12, unknown_answers="ignore")
    data = VQA.load(args, None)
    for family, strategy in STRATEGIES.items():
        train_and_push(family, data, args)
        name = f"user/tiny-{family}"
        run = tmp_path / f"run-{family}"
        files, titles = hub.files(name), hub.repos[name].titles
        for commit in list(hub.repos[name].commits.values())[1:]:  # each is whole
            assert set(commit) - {".gitattributes"} == CHECKPOINT_FILES | MADE
        assert titles[-1] == "End of training"
        in_progress = any(title.startswith("Training in progress") for title in titles)
        assert in_progress == (strategy == "every_save")
        assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
        assert (run / "training_args.bin").is_file()  # stays at home
        assert f'model="{name}"' in files["README.md"].decode()
        assert "model-index:" in files["README.md"].decode()
        report = json.loads(files["results.json"])["report"]
        assert report["student"]["accuracy"] >= 0
        assert report["gflops"]["student"] > 0
        assert len(report["tokens_per_layer"]["student"]) == CONFIGS[family]["num_hidden_layers"]

    classes = "PuMerMeterProcessor PuMerMeterForQuestionAnswering PuMerMeterModel\n"
    classes += "ViltProcessor PuMerViltForQuestionAnswering PuMerViltModel\n"
    for options in ({"first": "import pumer_hf", "trust": ""}, {"first": "", "trust": ", trust_remote_code=True"}):
        printed = client(LOAD.format(**options)).stdout.splitlines(keepends=True)
        assert "".join(line for line in printed if "PuMer" in line) == classes
    for family, processor in (("Meter", "modeling_pumer.PuMerMeterProcessor"), ("Vilt", None)):
        again = tmp_path / f"again-{family.lower()}"  # a model that came with remote code is saved with it
        assert {path.name for path in again.iterdir()} == CHECKPOINT_FILES
        config = json.loads((again / "config.json").read_text())
        assert config["auto_map"]["AutoModel"] == f"modeling_pumer.PuMer{family}Model"
        saved = json.loads((again / "processor_config.json").read_text())
        assert saved.get("auto_map", {}).get("AutoProcessor") == processor


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    first = install_commands()[0]
    remote_code.write_remote_code(tmp_path, "PuMerViltConfig")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "pumer_hf", None)  # as if it were not installed
    with pytest.raises(ImportError, match=f"pumer-hf: run `{re.escape(first)}`"):
        dynamic_module_utils.get_class_from_dynamic_module("modeling_pumer.PuMerViltConfig", tmp_path)
