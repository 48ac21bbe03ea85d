import os
from pathlib import Path

import pytest

# Set before any of these libraries is imported, and inherited by the commands that tests start.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of published datasets that no clone carries; tests that ask for it skip where it is absent."""
    folder = Path(os.environ.get("LATENT_LAB_DATA") or REPOSITORY / "../shared/data").resolve()
    if not folder.is_dir():
        pytest.skip(f"published datasets are not at {folder}: set LATENT_LAB_DATA to their folder")
    return folder
