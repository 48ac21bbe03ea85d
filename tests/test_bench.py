"""make bench: the ratio is ours over theirs, and both sides do what the row says."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import latent_lab.bench.__main__ as command
from latent_lab.bench import timing, waiting
from latent_lab.bench.answering import counting, few, length, one_at_a_time, questions, solver_of
from latent_lab.bench.machine import Machine, peak
from latent_lab.bench.published import published_loss
from latent_lab.bench.steps import TOKENS, batch, model, seconds_of, step_cases, throughput, training_step
from latent_lab.bench.timing import Case, Row, compare, row_of, timed
from latent_lab.bench.waiting import first_step, graphs_row, threads
from latent_lab.reasoner import LatentReasoner
from latent_lab.sequences import IGNORE, Encoded

CPU = Machine.named("cpu")
TINY = Machine(
    torch.device("cpu"),
    (torch.float32, torch.bfloat16),
    backend="eager",
    matrix=16,
    mini=(1, 16),
    small=(2, 16),
    vocabulary=50,
)
"""Steps of every kind in two number formats, as they are measured on a GPU, in seconds."""


# Rows


def test_a_row_holds_the_median_ratio_its_quartiles_and_whether_it_keeps_below_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9, 9, 1, 2, 2, 2, 3, 2])  # a warm-up of both sides, then ours and theirs in turn: ratios 0.5, 1 and 1.5
    monkeypatch.setattr(timing, "timed", lambda work: next(seconds))
    row = compare("ours / theirs", lambda: None, lambda: None, bar=1.0, n=3)
    assert row == Row("ours / theirs", 1.0, 1.0, 0.75, 1.25, 3, seconds=(2, 2))
    assert {"name", "ratio", "bar", "holds", "low", "high", "n"} <= row.as_dict().keys()
    assert row.holds


def test_a_speedup_must_reach_its_bar_and_any_other_ratio_must_not_pass_it() -> None:
    assert [row_of("x", [ratio], 20.0, is_speedup=True).holds for ratio in (19.9, 20.0)] == [False, True]
    assert [row_of("x", [ratio], 0.85).holds for ratio in (0.85, 0.86)] == [True, False]


def test_a_row_without_a_bar_misses_none_and_says_so() -> None:
    row = row_of("published", [1.5, 1.7], None)
    assert row.holds
    assert " ".join(row.in_words().split()) == "published 1.600 (1.550 to 1.650, n=2) no bar"
    assert " ".join(row_of("x", [0.5], 0.85).in_words().split()) == "x 0.500 (0.500 to 0.500, n=1) bar <= 0.85 holds"


def test_every_bar_has_its_rows() -> None:
    names = [case.name for case in command.every(CPU, is_quick=False)]
    assert len(set(names)) == len(names)
    steps = [f"step / plain: {what}, batch {n}, 6 thoughts" for what in ("mini", "GPT-2 small") for n in (8, 16, 32, 64)]
    early = [f"step / plain: {what}, early stage (1 thought, 64 labels)" for what in ("mini, batch 8", "GPT-2 small, batch 8")]
    others = [
        "step time, batch 64 / 8 x batch 8: mini",
        "64 new tokens, batch 32 / own generate: mini",
        "500 questions, answers of about 10 tokens: times faster than one at a time",
        "500 questions, answers of about 64 tokens: times faster than one at a time",
        "peak memory of a step / plain: mini, vocabulary 50257, batch 16",
        "data / training step: the demonstration",
        "seconds to the first step beyond the imports: train model=nano",
    ]
    assert {*steps, *early, *others} <= set(names)
    assert len([name for name in names if name.startswith("published step / plain")]) == 3


def test_a_look_leaves_what_takes_long_out() -> None:
    names = [case.name for case in command.every(CPU, is_quick=True)]
    assert not [name for name in names if "GPT-2 small" in name or "batch 64, 6 thoughts" in name]


# Steps


def test_the_batch_has_its_slots_after_the_question_and_labels_on_the_answer_alone() -> None:
    ids, labels = batch(rows=2, question=5, slots=3, answer=4, vocabulary=50)
    assert ids.shape == labels.shape == (2, 14)
    assert ids[0, 5:10].tolist() == [1, 2, 2, 2, 3]
    assert (labels[:, :10] == IGNORE).all()
    assert torch.equal(labels[:, 10:], ids[:, 10:])


def test_both_sides_of_the_training_step_reach_every_parameter() -> None:
    backbone = model(layers=1, width=64, vocabulary=50)
    for side in training_step(backbone, *batch(rows=2, question=5, slots=3, answer=4, vocabulary=50)):
        backbone.zero_grad(set_to_none=True)
        side()
        assert all(p.grad is not None for p in backbone.parameters())


def test_without_slots_the_two_sides_are_the_same_loss() -> None:
    backbone = model(layers=1, width=64, vocabulary=50)
    ids, labels = batch(rows=2, question=5, slots=0, answer=4, vocabulary=50)
    ours = LatentReasoner(backbone, TOKENS)(ids, labels=labels).loss
    assert ours.item() == pytest.approx(backbone(input_ids=ids, labels=labels).loss.item(), rel=1e-6)


def test_the_published_step_has_the_same_loss_and_gradients() -> None:
    backbone = model(layers=2, width=64, vocabulary=50).double()
    ids, labels = batch(rows=3, question=5, slots=3, answer=4, vocabulary=50)
    found = []
    for loss in (LatentReasoner(backbone, TOKENS)(ids, labels=labels).loss, published_loss(backbone, ids, labels, TOKENS.latent)):
        backbone.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in backbone.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_steps_of_every_kind_are_measured_in_each_number_format() -> None:
    for case in step_cases(TINY):
        if "batch 32" in case.name or "batch 64" in case.name:
            continue  # larger, and otherwise the same
        row = case.measure(case.name, 2)
        assert (row.name, row.n) == (case.name, 2)
        assert 0 < row.low <= row.ratio <= row.high
    names = [case.name for case in step_cases(TINY)]
    assert "step / plain: GPT-2 small, batch 64, 6 thoughts, bfloat16" in names
    assert "step / plain: GPT-2 small, batch 8, 6 thoughts, compiled, bfloat16" in names
    assert [each["name"] for each in throughput(TINY, 1)] == ["step of mini, 32 rows", "step of mini, 32 rows, bfloat16"]
    assert all(seconds > 0 for seconds in seconds_of(TINY, width=32, rows=2, question=5, slots=1)())


def test_in_another_number_format_the_blocks_compute_in_it_on_both_sides() -> None:
    backbone, seen = model(layers=1, width=64, vocabulary=50), []
    backbone.transformer.h[0].mlp.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    for side in training_step(backbone, *batch(rows=2, question=5, slots=2, answer=4, vocabulary=50), torch.bfloat16):
        side()
    assert set(seen) == {torch.bfloat16}


def holding(device: torch.device) -> Callable[[], None]:
    """Work that holds 4 million bytes, then less."""
    kept = torch.zeros(1000, device=device)

    def work() -> None:
        first = torch.zeros(1_000_000, device=device)
        del first
        second, third = torch.zeros(500_000, device=device), torch.zeros(400_000, device=device)
        kept.add_(second[0] + third[0])

    return work


def test_memory_is_what_a_piece_of_work_holds_at_most() -> None:
    assert peak(holding(CPU.device), CPU.device) == pytest.approx(4_000_000, rel=0.01)


@pytest.mark.gpu
def test_on_a_gpu_memory_is_counted_there_and_steps_have_bars_of_their_own() -> None:
    machine = Machine.named("cuda")
    assert peak(holding(machine.device), machine.device) == pytest.approx(4_000_000, rel=0.05)
    assert machine.name == torch.cuda.get_device_name()
    rows = [case.measure(case.name, 2) for case in step_cases(machine, is_quick=True)]
    bars = {row.bar for row in rows if row.name.startswith("step / plain") and "compiled" not in row.name}
    assert bars == {1.4}
    assert {row.bar for row in rows if "compiled" in row.name} == {1.15}


# Answers


@pytest.mark.parametrize("mean", [10, pytest.param(64, marks=pytest.mark.slow)])
def test_both_ways_of_answering_write_as_many_tokens_as_the_question_says(mean: int) -> None:
    backbone = counting(CPU)
    solver, asked = solver_of(backbone), questions(backbone, mean)
    assert sum(map(length, asked)) / len(asked) == pytest.approx(mean, abs=1)
    some = asked[5:13]
    # What a reply counts has the first token of the answer, which the question gave, as well.
    assert [reply.num_tokens - 1 for reply in solver.replies(some)] == [length(p) for p in some]
    assert one_at_a_time(solver, some) == [length(p) for p in some]


def test_the_few_questions_of_the_slow_side_are_of_all_lengths() -> None:
    problems = [Encoded(str(n), (), (), (3 + n,)) for n in (9, 1, 5, 2, 10, 3, 8, 4, 7, 6)]  # answers of 1 to 10 tokens
    some, share = few(problems, 3)
    assert [length(problem) for problem in some] == [2, 5, 8]
    assert share == 55 / 15


# Waiting


def test_a_recipe_is_measured_on_its_own_threads_and_the_rest_as_before() -> None:
    before = torch.get_num_threads()
    for asked, got in ((1, 1), (before + 1, before + 1), (None, before)):
        with threads(asked):
            assert torch.get_num_threads() == got
        assert torch.get_num_threads() == before


def test_cpu_time_is_not_that_of_waiting() -> None:
    assert timed(lambda: time.sleep(0.2), time.process_time) < 0.1 < timed(lambda: time.sleep(0.2))


@pytest.mark.parametrize("form", ["text", "symbolic"])
def test_graphs_a_second_are_those_drawn_by_the_cpu_seconds_it_took(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, int, str]] = []
    seconds = iter([9.0, 0.01, 0.04, 0.02])  # the first time does not count

    def measured(work: timing.Work, clock: object) -> float:
        made = work()
        assert isinstance(made, list)
        drawn.append((str(clock), len(made), made[0].question))
        return next(seconds)

    monkeypatch.setattr(waiting, "timed", measured)
    row = graphs_row("graphs", n=3, form=form, size=50)
    assert row == Row("graphs", 2_500, 2_000, 1_875, 3_750, 3, is_speedup=True)
    assert {(clock, count) for clock, count, _ in drawn} == {(str(time.process_time), 50)}
    assert len({question for *_, question in drawn}) == 4  # drawn anew each time
    assert all(question.startswith("<eos>") == (form == "symbolic") for *_, question in drawn)


def test_a_start_that_fails_says_what_the_command_said(tmp_path: Path) -> None:
    (tmp_path / "start").write_text("a file where the run's folder would be")
    with pytest.raises(RuntimeError, match=r"ended before its first step: (?s:.*)start"):
        first_step(tmp_path, 0, "cpu")


# The command


@pytest.fixture
def three_rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Rows that measure the number that stands here at the time."""
    ratios = {"step: mini": 0.5, "step: small": 0.9, "memory": 0.4}

    def every(machine: Machine, *, is_quick: bool) -> Iterator[Case]:
        for name in ratios:
            yield Case(name, lambda name, n: row_of(name, [ratios[name]] * n, 0.85))

    monkeypatch.setattr(command, "every", every)
    return ratios


def test_rows_are_measured_again_by_a_part_of_their_name_and_the_others_stay(
    three_rows: dict[str, float], tmp_path: Path
) -> None:
    same = ["--device=cpu", "--threads=1", f"--out={tmp_path}", "--pairs=2"]

    def found() -> dict[str, tuple[float, int]]:
        rows = json.loads((tmp_path / "result.json").read_text())["rows"]
        return {row["name"]: (row["ratio"], row["n"]) for row in rows}

    command.main([*same, "--only=memory", "--only=small"])
    assert found() == {"step: small": (0.9, 2), "memory": (0.4, 2)}
    three_rows.update({"step: small": 0.8, "memory": 9.0})
    command.main([*same, "--only=step", "--pairs=3"])
    assert found() == {"step: small": (0.8, 3), "memory": (0.4, 2), "step: mini": (0.5, 3)}


@pytest.mark.usefixtures("three_rows")
def test_everything_measured_is_in_the_result_with_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "named", lambda device: TINY)
    monkeypatch.setattr(command, "ALONG", {"rows": (1, 2), "question": (5, 9)})
    command.main(["--device=cpu", "--threads=1", f"--out={tmp_path}", "--pairs=2"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["step: mini", "step: small", "memory"]
    assert [row["holds"] for row in result["rows"]] == [True, False, True]
    assert (result["device"], result["threads"]) == ("cpu", 1)
    assert {name: [point["at"] for point in line] for name, line in result["growth"].items()} == {
        "rows": [1, 2],
        "question": [5, 9],
    }
    assert [each["name"] for each in result["throughput"]] == ["step of mini, 32 rows", "step of mini, 32 rows, bfloat16"]
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.usefixtures("three_rows")
def test_rows_of_another_setting_do_not_stand_beside_each_other(tmp_path: Path) -> None:
    command.main(["--device=cpu", "--threads=1", f"--out={tmp_path}", "--only=memory"])
    with pytest.raises(SystemExit, match="2"):
        command.main(["--device=cpu", "--threads=2", f"--out={tmp_path}", "--only=memory"])
    with pytest.raises(ValueError, match=r"result\.json: its rows were measured with threads 1, not 2; give another --out$"):
        command.stored(tmp_path / "result.json", {"device": "cpu", "threads": 2})


@pytest.mark.usefixtures("three_rows")
def test_what_cannot_be_measured_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, said in (
        (["--only=large"], "--only large: no row's name holds it; there are\n  step: mini\n  step: small\n  memory\n"),
        (["--device=cuda"], "--device cuda: PyTorch finds no GPU on this machine; allowed: cpu\n"),
        (["--threads=0"], "--threads 0: allowed are 1 and more\n"),
        (["--pairs=1"], "--pairs 1: allowed are 2 and more, quartiles need them\n"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(arguments)
        assert capsys.readouterr().err.endswith(f"error: {said}")


# The log


def test_the_tests_that_keep_fast_paths_exact_are_where_the_log_says() -> None:
    folder = Path(__file__).parent
    table = (folder.parent / "docs/performance.md").read_text().partition("## What keeps each fast path exact")[2]
    named = set(re.findall(r"`(test_\w+)`", table))
    written = {name for path in folder.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}
    assert len(named) > 10
    assert named <= written
    assert set(re.findall(r"`(test_\w+\.py)`", table)) <= {path.name for path in folder.rglob("test_*.py")}
