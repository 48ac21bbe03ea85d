"""The oracle of a thoughts report: found, or trained first."""

from pathlib import Path

from latent_lab.config import EvalConfig
from latent_lab.grading.session import trained_config
from latent_lab.job import Job
from latent_lab.job import job as make_job
from latent_lab.report.thoughts_task import ThoughtsTask


def ready_oracle(task: ThoughtsTask, job: Job) -> Path:
    """The folder of the run's oracle, trained first where it is missing.

    It is called ``RUN-oracle-KIND`` and lies beside the run; with settings of its own (``oracle.scale=...``) its name lists them.
    """
    config: EvalConfig = job.config
    if task.oracle_run is not None:
        return config.folder(task.oracle_run)
    trained = trained_config(config.run_folder)
    kind = job.chosen("oracle") or "self"
    more = [text for text in job.overrides if text.startswith("oracle.")]
    preset = "oracle_lora" if kind == "lora" else "oracle"  # thin matrices want a course of their own
    overrides = [f"experiment={preset}", f"oracle={kind}", f"stage.run={config.run_folder}", f"seed={trained.seed}", *more]
    overrides += [f"outputs={config.run_folder.parent}", f"device={config.device}", f"precision={config.precision}"]
    if not more:
        overrides.append(f"name={config.run_folder.name}-oracle-{kind}")
    made = make_job("train", overrides)
    made.config.stage.train(made)
    return Path(made.config.outputs) / made.slug
