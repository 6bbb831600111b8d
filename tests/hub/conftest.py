import pytest

from pumer_hf import release


@pytest.fixture(autouse=True)
def unpublished(monkeypatch):
    """The tests are about a package that PyPI does not have, also after it has it, unless they say something else."""
    monkeypatch.setattr(release, "PUBLISHED", False)
