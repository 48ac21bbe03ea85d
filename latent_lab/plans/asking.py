"""Questions to a language model that must be answered in the right form: asked again where they are not, up to a limit."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from latent_lab.grading.judge import check_replies
from latent_lab.grading.judges import Asking, Talk
from latent_lab.plans.annotation import Messages, Unfit

T = TypeVar("T")


class Asker:
    """Asks one model, and remembers why it has no answer for some."""

    def __init__(self, model: Asking, talk: Talk, tries: int) -> None:
        self.model, self.talk, self.tries = model, talk, tries
        self.reasons: dict[str, str] = {}
        """What was wrong with the last reply about an id, where there was one."""

    def ask(self, asked: Mapping[str, Messages], read: Callable[[str, str], T]) -> dict[str, T]:
        """Ask about ids, and again for what cannot be read (:class:`Unfit`); what never can is left out, with the reason.

        Raises :class:`latent_lab.grading.judge.JudgeError` where too few replies come; those that came are kept.
        """
        found: dict[str, T] = {}
        left = list(asked)
        for sample in range(self.tries):
            done = dict(zip(left, self.talk([asked[i] for i in left], sample) if left else [], strict=True))
            check_replies(self.model, [reply.error for reply in done.values()], len(asked))
            for i, reply in done.items():
                try:
                    if reply.error or reply.finish_reason == "length":
                        raise Unfit("no reply" if reply.error else "cut off: judge.max_tokens is too small")
                    found[i] = read(i, reply.text or "")
                except Unfit as error:
                    self.reasons[i] = str(error)
            left = [i for i in left if i not in found]
        return {i: found[i] for i in asked if i in found}
