"""A page and a browser to look at it with."""

import pytest
from browser import chromium, served
from tiny_tasks import save_tiny


@pytest.fixture(scope="module")
def server_log(tmp_path_factory):
    """What the server of the page writes."""
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def address(tmp_path_factory, server_log):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[demo]'")
    folder = tmp_path_factory.mktemp("models")
    teacher = save_tiny(folder / "teacher", "vilt", reduction=None, seed=1)
    with served(server_log, save_tiny(folder / "student", "vilt"), "--teacher", teacher) as address:
        yield address


@pytest.fixture
def browser():
    with chromium() as browser:
        yield browser
