"""Train a model to think in continuous vectors: ``python -m latent_lab.train stage=3`` (``--help`` shows what can be said)."""

from latent_lab.door import door
from latent_lab.job import Job


def main() -> None:
    """Compose, check, and train."""
    door("train", work)


def work(job: Job) -> None:
    """Let the stage train one job; torch is imported only now, when every job is known to be sound."""
    job.config.stage.train(job)


if __name__ == "__main__":
    main()
