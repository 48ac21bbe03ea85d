"""What both doors do with a command line: compose, check, then work, with one readable line where something is wrong.

Plain runs and ``-m`` sweeps are composed and checked here, every job before the first one works. What only shows something
(``--help``, ``--cfg``, ``--info``, tab completion) and what brings a launcher or sweeper of its own (``hydra/launcher=...``)
goes to Hydra's own main.
"""

import ctypes
import logging
import os
import sys
from argparse import ArgumentError, Namespace
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from latent_lab.config import ConfigError, Job, as_hydra_reads, compose, config_folder, job, jobs, meant

log = logging.getLogger(__name__)

Work = Callable[[Job], object]


def door(name: str, work: Work) -> None:
    """Run ``work`` on every job that the command line of the door ``name`` (``train`` or ``eval``) asks for.

    Exits with 2 where the user can mend it (one line on stderr says how); an error of the program keeps its traceback.
    """
    try:
        flags, arguments, overrides = command_line(sys.argv[1:])
        brings_its_own = any(text.startswith(("hydra/launcher", "hydra/sweeper", "hydra.mode")) for text in overrides)
        if brings_its_own or shows_only(arguments):
            through_hydra(name, work, flags, arguments, overrides)
        elif arguments.multirun:
            sweep(jobs(name, overrides), work)
        else:
            only = job(name, overrides)
            prepare_process()
            work(only)
    except ValueError as error:
        if not is_for_the_user(error):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def is_for_the_user(error: Exception) -> bool:
    """Whether the message is for the user: ConfigError, DataError, RunConflict and the like, each a ValueError of ours."""
    return isinstance(error, ValueError) and type(error).__module__.startswith("latent_lab.")


def command_line(argv: list[str]) -> tuple[list[str], Namespace, list[str]]:
    """Split a command line, in whatever order, into flags (raw, then parsed) and overrides."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        arguments, rest = parser.parse_known_args(argv)
    except ArgumentError as error:
        raise ConfigError(error.argument_name or "flags", " ".join(argv), error.message) from error
    known = [option for action in parser._actions for option in action.option_strings]
    for flag in [text for text in rest if text.startswith("-")]:
        raise ConfigError(flag, None, f"there is no such flag; allowed: {', '.join(known)}{meant(flag, known)}")
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, flag):
            raise ConfigError(
                "--" + flag.replace("_", "-"), getattr(arguments, flag), "allowed: experiment=NAME, --config-dir DIR"
            )
    modes = [mode for mode in ("run", "multirun", "cfg", "info", "shell_completion") if getattr(arguments, mode)]
    if len(modes) > 1:
        raise ConfigError("flags", ", ".join(f"--{mode}" for mode in modes), "allowed: one of them")
    if (arguments.resolve or arguments.package) and not arguments.cfg:
        raise ConfigError("--resolve" if arguments.resolve else "--package", None, "allowed: only beside --cfg")
    overrides = [text for text in argv if text in (*arguments.overrides, *rest)]
    flags = [text for text in argv if text not in overrides]
    if arguments.config_dir:
        if not Path(arguments.config_dir).is_dir():
            raise ConfigError(
                "--config-dir", arguments.config_dir, "there is no such folder; allowed: a folder laid out like conf/"
            )
        overrides.append(f"hydra.searchpath=['schema://','file://{Path(arguments.config_dir).resolve()}']")
    return flags, arguments, overrides


def shows_only(arguments: Namespace) -> bool:
    """Whether the flags ask to see something and to run nothing."""
    return bool(arguments.help or arguments.hydra_help or arguments.cfg or arguments.info or arguments.shell_completion)


def through_hydra(name: str, work: Work, flags: list[str], arguments: Namespace, overrides: list[str]) -> None:
    """Let Hydra's main do it; its jobs are composed again from their overrides, so that they are the same jobs."""
    as_read = [text for override in overrides for text in as_hydra_reads(override, arguments.multirun)]
    if arguments.help or arguments.cfg or arguments.info:
        compose(name, as_read)

    def task(_: DictConfig) -> None:
        prepare_process()
        work(job(name, list(HydraConfig.get().overrides.task), is_sweep=arguments.multirun))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong, in place of printing it in its own words.
    sys.argv[1:] = [*flags, *as_read]
    hydra.main(config_folder(), name, version_base="1.3")(task)()


def sweep(planned: list[Job], work: Work) -> None:
    """Do the jobs one after another; one that fails does not stop the rest, and is named again at the end."""
    prepare_process()
    failed: dict[str, Exception] = {}
    for number, each in enumerate(planned, start=1):
        log.info("job %d of %d: %s", number, len(planned), " ".join(each.overrides) or each.slug)
        try:
            work(each)
        except Exception as error:
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise  # The other processes wait inside this job: going on alone would hang.
            failed[each.slug] = error
            if is_for_the_user(error):
                log.error("error: %s", error)
            else:
                log.exception("job %d (%s) failed", number, each.slug)
    if failed:
        log.error("%d of %d jobs failed: %s", len(failed), len(planned), "; ".join(failed))
        sys.exit(2 if all(map(is_for_the_user, failed.values())) else 1)


def prepare_process() -> None:
    """Send the log to stderr, and have freed memory kept."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)  # it warns of tied weights at every checkpoint
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed memory instead of handing it back to the kernel.

    By default every large tensor is mapped anew and its pages are faulted in one by one: on a CPU a third of a training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        for parameter, size in ((trim_threshold, 2**31 - 1), (top_pad, 2**26), (mmap_threshold, 2**30)):
            mallopt(parameter, size)
