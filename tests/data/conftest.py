"""Hub datasets, as folders of parquet files: `load_dataset` reads either in the same way."""

import pytest
from datasets import Dataset, Features


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Write splits as parquet files; returns what goes for the id of the dataset."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # `datasets` waits 5 s whenever it stops reading parquet, against a crash of Arrow when Python ends.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # newer versions

    def write(features=None, **splits):
        for name, columns in splits.items():
            (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
            dataset = Dataset.from_dict(columns, features=features and Features(features))
            dataset.to_parquet(tmp_path / "hub" / "data" / f"{name}-00000-of-00001.parquet")
        return str(tmp_path / "hub")

    return write
