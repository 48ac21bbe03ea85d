"""Progress: a bar in a terminal, log lines elsewhere, nothing on other processes."""

import logging
import os
import pty
import re
import subprocess
import sys
import threading

from latent_lab.progress import progress


def test_without_a_terminal_it_is_a_log_line_now_and_then(caplog, capsys):
    with caplog.at_level(logging.INFO, "latent_lab.progress"), progress("evaluate", 8, unit="problems", every=0.0) as advance:
        advance(2)
        advance(6)
    first, last = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"evaluate: 2 of 8, [\d.]+ problems/s, \d:\d\d:\d\d left", first)
    assert re.fullmatch(r"evaluate: 8 of 8, [\d.]+ problems/s, 0:00:00 left", last)
    assert capsys.readouterr() == ("", "")


def test_what_else_is_known_stands_behind(caplog):
    with (
        caplog.at_level(logging.INFO, "latent_lab.progress"),
        progress("think", 4, every=0.0, note=lambda: "50% right") as advance,
    ):
        advance(1)
    (line,) = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"think: 1 of 4, [\d.]+ items/s, \d:\d\d:\d\d left; 50% right", line)


def test_a_short_step_and_other_processes_say_nothing(caplog):
    with caplog.at_level(logging.INFO, "latent_lab.progress"):
        with progress("evaluate", 8) as advance:
            advance(8)
        with progress("evaluate", 8, is_main=False, every=0.0) as advance:
            advance(8)
    assert caplog.records == []


def test_in_a_terminal_bars_show_done_and_total_and_may_be_nested():
    code = (
        "import time\nfrom latent_lab.progress import progress\n"
        "with progress('train', 4, unit='steps') as step:\n"
        "    step(3)\n"
        "    with progress('evaluate', 50, unit='problems', note=lambda: '7% [right]') as advance:\n"
        "        advance(20); time.sleep(0.3)\n"
    )
    master, slave = pty.openpty()
    shown = bytearray()

    def read():
        while chunk := _read(master):
            shown.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", code], stderr=slave, stdout=subprocess.PIPE, env=environment, check=True)
    os.close(slave)
    reader.join(timeout=10)
    os.close(master)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"train +\S+ 3/4 ", text)
    assert re.search(r"evaluate +\S+ 20/50 [\d.]+ problems/s .*7% \[right\]", text)
    assert done.stdout == b""


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""
