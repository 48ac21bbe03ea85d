"""All chains together: what they wait for is asked at once, so that servers are busy and local models have batches."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from latent_lab.calls.client import Completion, Request
from latent_lab.deliberation.backends import Caller
from latent_lab.deliberation.board import Row
from latent_lab.deliberation.loop import Talk


def driven(chains: Sequence[Talk], callers: Mapping[str, Caller]) -> list[list[Row]]:
    """Let all chains think, each as far as it waits for an answer, then answer all that wait; ``callers`` by role.

    A chain hears its answer as soon as it is there, and what it then asks waits for the next round.
    """
    rows: dict[int, list[Row]] = {}
    waiting: dict[int, list[Request]] = {}

    def go_on(i: int, answers: list[Completion] | None) -> None:
        try:
            waiting[i] = chains[i].send(answers) if answers is not None else next(chains[i])
        except StopIteration as ended:
            rows[i] = ended.value

    for i in range(len(chains)):
        go_on(i, None)
    while waiting:
        asked = dict(sorted(waiting.items()))
        waiting.clear()
        answer(asked, callers, go_on)
    return [rows[i] for i in range(len(chains))]


def answer(
    asked: Mapping[int, list[Request]], callers: Mapping[str, Caller], go_on: Callable[[int, list[Completion]], None]
) -> None:
    """Answer all that chains wait for; a chain goes on as soon as all of its answers are there."""
    answers: dict[int, dict[int, Completion]] = {i: {} for i in asked}

    def told(mine: Sequence[tuple[int, int, Request]], number: int, done: Completion) -> None:
        i, place, _ = mine[number]
        answers[i][place] = done
        if len(answers[i]) == len(asked[i]):
            go_on(i, [answers[i][n] for n in range(len(asked[i]))])

    for role, caller in callers.items():
        mine = [(i, n, each) for i, requests in asked.items() for n, each in enumerate(requests) if each.about["role"] == role]
        if mine:
            caller.complete([request for _, _, request in mine], told=partial(told, mine))
