"""Questions never hold their answer, the first token of an answer is always learned, and wordings for the test stay unseen."""

import random
from pathlib import Path

import pytest
import torch

from latent_lab.backbone import digit_tokenizer
from latent_lab.problems.arithmetic import Arithmetic
from latent_lab.sequences import IGNORE
from latent_lab.symbols import symbol_tokenizer
from latent_lab.thoughts.grammar import ADDITION
from latent_lab.thoughts.oracle_options import OracleOptions
from latent_lab.thoughts.questions import NO, WORDINGS, YES, Item, Material, Mixture, Writer, labelled, statements
from latent_lab.thoughts.store import ThoughtStore

PROBLEMS = Arithmetic(train_size=60, digits=[2], probabilities=[1.0]).load("train")


class Stored(ThoughtStore):
    """A store that was never written."""

    def layer(self, number: int) -> torch.Tensor:
        slots = torch.arange(3.0)[None, :, None]
        return torch.arange(60.0)[:, None, None] * 10 + slots + torch.zeros(60, 3, 4) + number * 0.5


def material(layers: tuple[int, ...] = (0,)) -> Material:
    store = Stored(Path(), {"layers": list(layers), "shards": []})
    rows = [
        {
            "id": p.id,
            "question": p.question,
            "steps": list(p.steps),
            "gold": p.answer,
            "num_slots": 3,
            "meta": {},
            "correct": True,
        }
        for p in PROBLEMS
    ]
    store.__dict__["rows"] = rows
    return Material(store, ADDITION, layers)


def writer() -> Writer:
    return Writer(digit_tokenizer(PROBLEMS, 400))


def test_a_prompt_is_placeholders_question_newline_and_text_stands_before() -> None:
    made = writer()
    ids, columns = made.prompt("step?", 2)
    assert made.tokenizer.decode(ids) == "??step?\n"
    assert list(columns) == [0, 1]
    ids, columns = made.prompt("step?", 1, "12 + 34 =")
    assert made.tokenizer.decode(ids) == "12 + 34 =\n?step?\n"
    assert ids[columns[0]] == made.placeholder


def test_labels_are_the_whole_target_with_its_first_token_and_its_end() -> None:
    made = writer()
    prompt, target = made.prompt("step?", 1)[0], made.target("2+4=6 write 6")
    ids, labels = labelled(prompt, target)
    assert ids == prompt + target
    assert labels == (IGNORE,) * len(prompt) + target
    assert target[-1] == made.end
    assert made.text(target) == "2+4=6 write 6"
    with pytest.raises(AssertionError, match="without a label"):
        labelled(prompt, ())


def test_every_example_of_the_mixture_has_a_label_on_its_first_target_token_and_none_in_its_prompt() -> None:
    made = writer()
    mixture = Mixture(material(), made, OracleOptions())
    for example in mixture.draw("0/0") + mixture.draw("0/1"):
        if example.question is not None:
            prompt = made.prompt(example.question.text, len(example.slots))[0]
            _, labels = labelled(prompt, made.target(example.target))
            assert [label != IGNORE for label in labels].index(True) == len(prompt)
            if example.question.task in ("step", "answer", "problem"):
                assert example.target not in example.question.text


def test_an_epoch_depends_on_its_seed_alone() -> None:
    mixture = Mixture(material(), writer(), OracleOptions())
    assert mixture.draw("0/0") == mixture.draw("0/0") != mixture.draw("0/1")
    assert len(mixture.draw("0/0")) == len(mixture) == sum(min(len(p.steps), 3) for p in PROBLEMS)


def test_held_out_wordings_are_never_drawn_in_training() -> None:
    mixture = Mixture(material(), writer(), OracleOptions())
    for task, (trained, other) in WORDINGS.items():
        assert other not in trained
        held = {q.text for q in writer().questions(task, "total", held_out=True)}
        drawn = {e.question.text for e in mixture.draw("s") if e.question and e.question.task == task}
        assert not held & drawn


def test_yes_and_no_are_equally_frequent_whatever_is_asked() -> None:
    options = OracleOptions(tasks={"step": 0.001, "yes_no": 1.0}, none_share=0, text_only_share=0, text_share=0)
    mixture = Mixture(material(), writer(), options)
    said = [e.target for k in range(20) for e in mixture.draw(str(k)) if e.question and e.question.task == "yes_no"]
    assert set(said) == {YES, NO}
    assert 0.46 < said.count(YES) / len(said) < 0.54


def test_statements_are_true_of_the_steps_they_are_drawn_for() -> None:
    mixture = Mixture(material(), writer(), OracleOptions())
    holds = dict(mixture.statements)
    for k in range(200):
        item, about, answer = mixture._yes_no(mixture.material.items[k % 50], random.Random(k))
        if about in holds:
            fields = ADDITION.labels([mixture.material.step(item)])[0]
            assert holds[about](fields) is (answer == YES)
        else:
            own = mixture.material.rows[item.problem]["question"]
            assert (about == f"of {own}") is (answer == YES)


def test_numbers_are_cut_at_their_median_and_flags_are_asked_as_they_are() -> None:
    labels = [{"write": str(d), "carry_out": str(d % 2)} for d in range(9)]
    (flag, is_set), (above, is_above) = statements(labels)
    assert (flag, above) == ("carry_out", "write>4")
    assert is_set({"carry_out": "1"}) is True
    assert is_above({"write": "4"}) is False
    assert is_above({}) is None


def test_steps_stand_in_the_last_of_their_slots() -> None:
    given = material()
    assert given.items[:2] == [Item(0, 0, 0), Item(0, 1, 1)]
    doubled = Material(given.store, ADDITION, (0,), latents_per_step=2)
    assert doubled.items[0] == Item(0, 0, 1)
    assert all(item.step == 0 for item in doubled.items)


def test_vectors_of_several_slots_and_layers_stand_side_by_side() -> None:
    given = material((0, 1))
    assert given.vectors(2, (0, 2))[:, 0].tolist() == [20.0, 20.5, 22.0, 22.5]


def test_symbols_are_asked_about_in_symbols() -> None:
    made = Writer(symbol_tokenizer())
    assert made.tokenizer.convert_ids_to_tokens(made.prompt("3 [R]", 1)[0]) == ["|", "3", "[R]"]
    assert made.questions("field", "node") == []
    assert made.questions("step")[0].text == "[R]"
    assert made.text(made.target("17")) == "17"
