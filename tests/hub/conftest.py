"""A Hub on the loopback interface that huggingface_hub talks to in this process."""

import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import constants

from pumer_hf import release


@pytest.fixture(autouse=True)
def unpublished(monkeypatch):
    """The tests are about a package that PyPI does not have, also after it has it, unless they say something else."""
    monkeypatch.setattr(release, "PUBLISHED", False)


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # it remembers the address
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
