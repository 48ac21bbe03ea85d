"""What both doors do with a command line: compose, check, then work, with one readable line where something is wrong.

Plain runs and ``-m`` sweeps are composed and checked here, every job before the first one works. What only shows something
(``--help``, ``--cfg``, ``--info``, tab completion) and what brings a launcher or sweeper of its own (``hydra/launcher=...``)
goes to Hydra's own main.
"""

import ctypes
import errno
import logging
import os
import sys
from argparse import SUPPRESS, ArgumentError, ArgumentParser
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from latent_lab.compose import COMPOSITION_ERRORS, compose
from latent_lab.config import ConfigError, meant
from latent_lab.job import Job, job, jobs
from latent_lab.overrides import all_as_hydra_reads, as_hydra_reads, config_folder

log = logging.getLogger(__name__)

Work = Callable[[Job], object]

MODES: dict[str, dict[str, Any]] = {
    "--help -h": {"action": "store_true"},
    "--cfg -c": {"choices": ["job", "hydra", "all"]},
    "--info -i": {"choices": ["all", "config", "defaults", "defaults-tree", "searchpath"]},
    "--shell-completion -sc": {"action": "store_true"},
    "--multirun -m": {"action": "store_true"},
}
"""Flags that say what to do, one at a time; all but the last only show something."""

OTHERS: dict[str, dict[str, Any]] = {"--resolve": {"action": "store_true"}, "--package -p": {}, "--config-dir -cd": {}}
"""Flags that go with another one; together with ``MODES``, those of Hydra's that make sense here."""

NO_PLACE = {
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOSPC, errno.EDQUOT),
}
"""Of a path that cannot be read or written: nothing that a traceback would help with."""


def door(name: str, work: Work) -> None:
    """Run ``work`` on every job that the command line of the door ``name`` (``train`` or ``eval``) asks for.

    Exits with 2 where the user can mend it (one line on stderr says how) and with 130 when interrupted; an error of the program
    keeps its traceback.
    """
    try:
        flags, overrides = command_line(sys.argv[1:])
        brings_its_own = any(text.startswith(("hydra/launcher", "hydra/sweeper", "hydra.mode")) for text in overrides)
        if brings_its_own or set(flags) - {"multirun"}:
            through_hydra(name, work, flags, overrides)
        elif "multirun" in flags:
            sweep(jobs(name, overrides), work)
        else:
            only = job(name, overrides)
            prepare_process()
            work(only)
    except BrokenPipeError:  # the reader of --help | head has seen enough; nothing more may be flushed into the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues where the last checkpoint was saved\n")
        sys.exit(130)
    except (ValueError, OSError) as error:
        if not is_for_the_user(error):
            raise
        sys.stderr.write(f"error: {in_words(error)}\n")
        sys.exit(2)


def is_for_the_user(error: Exception) -> bool:
    """Whether the message is for the user: a ValueError of ours (ConfigError, DataError, ...), or a path that is no place."""
    is_ours = isinstance(error, ValueError) and type(error).__module__.startswith("latent_lab.")
    return is_ours or (isinstance(error, OSError) and error.errno in NO_PLACE)


def in_words(error: Exception) -> str:
    """One line: what is wrong, and with an operating system's error where, and what to do."""
    if not isinstance(error, OSError):
        return str(error)
    where = error.filename or "a file"
    return f"{where}: {error.strerror}; allowed: a path that can be read and written, with room left on its disk"


def command_line(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Split a command line, in whatever order, into the flags that were given and the overrides."""
    parser = ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False, argument_default=SUPPRESS)
    modes = parser.add_mutually_exclusive_group()
    for group, flags in ((modes, MODES), (parser, OTHERS)):
        for names, properties in flags.items():
            group.add_argument(*names.split(), **properties)
    try:
        parsed, overrides = parser.parse_known_args(argv)
    except ArgumentError as error:
        raise ConfigError(str(error.argument_name), " ".join(argv), error.message) from error
    given, known = vars(parsed), [names.split()[0] for names in (*MODES, *OTHERS)]
    for flag in [text for text in overrides if text.startswith("-")]:
        raise ConfigError("flags", flag, f"there is no such flag; allowed: {', '.join(known)}{meant(flag, known)}")
    if given.keys() & {"resolve", "package"} and "cfg" not in given:
        raise ConfigError("--resolve, --package", " ".join(argv), "allowed: only beside --cfg")
    if "config_dir" in given:
        folder = Path(given.pop("config_dir"))
        if not folder.is_dir():
            raise ConfigError("--config-dir", folder, "there is no such folder; allowed: a folder laid out like conf/")
        overrides.append(f"hydra.searchpath=['schema://','file://{folder.resolve()}']")
    return given, overrides


def through_hydra(name: str, work: Work, flags: dict[str, Any], overrides: list[str]) -> None:
    """Let Hydra's main do it; its jobs are composed again from their overrides, so that they are the same jobs."""
    is_sweep = "multirun" in flags
    as_read = all_as_hydra_reads(overrides, is_sweep)
    if flags.keys() & {"help", "cfg", "info"}:
        compose(name, as_read)

    def task(_: DictConfig) -> None:
        prepare_process()
        work(job(name, list(HydraConfig.get().overrides.task), is_sweep=is_sweep))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong, in place of printing it in its own words.
    is_completing = "shell_completion" in flags
    if is_completing and "COMP_LINE" in os.environ:
        os.environ["COMP_LINE"] = line_as_hydra_reads(os.environ["COMP_LINE"])
    raw = [[f"--{flag.replace('_', '-')}", *([] if value is True else [value])] for flag, value in flags.items()]
    sys.argv[1:] = [*(text for flag in raw for text in flag), *as_read]
    with suppress(*COMPOSITION_ERRORS) if is_completing else nullcontext():  # a TAB after something wrong completes nothing
        hydra.main(str(config_folder()), name, version_base="1.3")(task)()


def line_as_hydra_reads(line: str) -> str:
    """The line a shell wants completed, its finished words turned into what Hydra's grammar takes."""
    finished, _, last = line.rpartition(" ")
    return " ".join([*(text for word in finished.split() for text in as_hydra_reads(word, is_sweep=True)), last])


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
                log.error("error: %s", in_words(error))
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
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every product in 8 bits
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch is loaded. Threads that wait for each other spin for milliseconds by default: on a machine with other work
    # to do, a training step then takes 9 s in place of 1 (docs/performance.md); when it is idle, this changes nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
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
