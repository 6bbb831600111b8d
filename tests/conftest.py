"""No test may reach the network. One thread: tiny models run slower on more."""

import gc
import os
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"  # of recipes in processes of their own, which take all cores
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

from pumer_hf.models.families import DECODERS

torch.set_num_threads(1)
gc.disable()  # until the tests are collected: see `pytest_collection_finish`

OF_DECODERS = [
    "bench/test_decoders.py",
    "cli/test_generate.py",
    "data/test_chat.py",
    "data/test_several_questions.py",
    "hub/test_decoders.py",
    "demo/test_decoder_asker.py",
    "demo/test_decoder_browser.py",
    "demo/test_decoder_page.py",
    "explain/test_decoder_report.py",
    "laboratory/test_decoder_sites.py",
    "laboratory/test_decoders.py",
    "laboratory/test_vlm.py",
    "models/decoders",
    "recipes/test_decoders.py",
    "recipes/test_small_llava.py",
    "recipes/test_train_scorer_decoder.py",
    "training/test_decoders.py",
    "training/test_scorer_decoders.py",
    "tuning/test_decoders.py",
]
"""Tests of decoder models, which need a newer transformers than the encoders do."""
collect_ignore = [] if DECODERS else OF_DECODERS

pytest_plugins = ["tiny_training", "hub_server"]

TESTS = Path(__file__).parent
UNIT = ("test_ops.py", "test_tokens.py", "test_configuration.py", "reducers", "models", "data", "metrics")
"""The files and folders of the unit tests, those that `make test-unit` runs at each save."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items):
    """Mark each test as `unit` or `integration`. A slow test is never a unit test."""
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if item.path.relative_to(TESTS).parts[0] in UNIT and not marks & {"slow", "integration"}:
            item.add_marker("unit")
        elif "integration" not in marks:
            item.add_marker("integration")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Hide from the garbage collector what is there before the first test: modules and tests, a million objects.

    They stay to the end. Each training collects garbage, and would look at all of them.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def gradio():
    """Gradio, which leaves event loops open: they are collected here, so that no later test meets the warning."""
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[demo]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        from pumer_hf.demo.parts import load_gradio

        yield load_gradio()
        gc.collect()
