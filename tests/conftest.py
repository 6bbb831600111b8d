"""No test may reach the network. One thread: tiny models run slower on more."""

import gc
import os
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["tiny_training"]


@pytest.fixture
def gradio():
    """Gradio, which leaves event loops open: they are collected here, so that no later test meets the warning."""
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[demo]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        from pumer_hf.demo.page import load_gradio

        yield load_gradio()
        gc.collect()
