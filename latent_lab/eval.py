"""Grade what a run has learned: ``python -m latent_lab.eval run=NAME`` (``--help`` shows what can be said)."""

from latent_lab.door import door
from latent_lab.job import Job


def main() -> None:
    """Compose, check, and do the chosen task."""
    door("eval", work)


def work(job: Job) -> None:
    """Let the task do one job; torch is imported only now, when every job is known to be sound."""
    job.config.task.run(job)


if __name__ == "__main__":
    main()
