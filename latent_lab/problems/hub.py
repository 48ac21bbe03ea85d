"""Problems from any dataset of the Hugging Face hub; no code of a dataset is ever run."""

from dataclasses import dataclass

from latent_lab.problems import SPLITS, DataError, Problem, Split
from latent_lab.problems.files import NoSplit, Records, Row, first_line


@dataclass
class Hub(Records):
    """A dataset of the hub (or a local copy of its folder), its splits and fields named as its page names them."""

    name: str = ""
    """``owner/name`` on the hub, or a local folder that ``datasets.load_dataset`` understands."""
    config: str | None = None
    """Configuration, for datasets that have several."""
    revision: str | None = None
    """Commit, tag or branch to read; a commit keeps results reproducible."""
    path: str | None = None
    """A file, or a folder of them, to read instead of the hub, as ``dataset=file`` does; its fields are named as on the hub."""
    train_split: str | None = "train"
    """Name of the training split; slices such as ``train[:1000]`` are allowed, here and below. None: there is none."""
    valid_split: str | None = "validation"
    """Name of the validation split. None: ``valid_share`` divides the training split."""
    test_split: str | None = "test"
    """Name of the test split. None: there is none."""

    def load(self, split: Split) -> list[Problem]:
        """Read one whole split, downloading it if need be, or raise :class:`DataError`."""
        if not self.name:
            raise DataError("dataset.name is empty: give the name of a dataset on the hub, such as openai/gsm8k")
        published = {"train": self.train_split, "valid": self.valid_split or self.train_split, "test": self.test_split}
        name = published[split]
        if name is None:
            raise no_split(self.name, split, [each for each in SPLITS if published[each]])
        if self.path is not None:
            return self.local(self.path, split)
        problems = self.download(name)
        is_divided = self.valid_split is None and split != "test"
        return self.share(problems, split) if is_divided else problems

    def download(self, published: str) -> list[Problem]:
        """Read a split of the hub by the name its publishers gave it."""
        return self.problems(read(self.name, self.config, published, self.revision), published)


def no_split(name: str, split: Split, others: list[Split]) -> NoSplit:
    """Say that the publishers of a dataset have no such split."""
    advice = "" if split == "test" else "; train on another dataset and grade the run on this one"
    return NoSplit(f"{name}: its publishers have no {split} split; allowed: {', '.join(others) or 'none'}{advice}")


def read(name: str, config: str | None, split: str, revision: str | None) -> list[Row]:
    """Read all rows of one published split; a dataset that cannot be had raises :class:`DataError` in one line."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        records = list(load_dataset(name, config, split=split, revision=revision))
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        asked = ", ".join(
            f"{key} {value}" for key, value in (("config", config), ("split", split), ("revision", revision)) if value
        )
        raise DataError(
            f"{name} ({asked}): cannot be had from the hub: {first_line(error).rstrip('.')}. "
            "Check these names and the network, or download it and read the files with dataset=file"
        ) from error
    if not records:
        raise DataError(f"{name}, split {split}: holds no record; at least one is needed")
    return [Row(number, f"{name}, {split} row {number}", record) for number, record in enumerate(records, start=1)]
