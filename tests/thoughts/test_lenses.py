"""Lenses say what the model's own head says; the final norm is applied once, and a lens that says nothing hits nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from latent_lab.loop import Loop
from latent_lab.reasoner import LatentReasoner, LatentTokens
from latent_lab.symbols import symbol_tokenizer
from latent_lab.thoughts import lens_tuned
from latent_lab.thoughts.grammar import ADDITION, Grammar
from latent_lab.thoughts.lens_kinds import (
    can_spell,
    embedding_lens,
    example_words,
    first_tokens,
    is_digit,
    logit_lens,
    look,
    patchscope,
    ranks,
)
from latent_lab.thoughts.lens_sources import by_layer
from latent_lab.thoughts.lens_targets import num_problems, target_layers
from latent_lab.thoughts.lens_tuned import affine_map, divergence, tuned_lens
from latent_lab.thoughts.lenses import LENSES, lens_report
from latent_lab.thoughts.probe_scores import Resampler
from latent_lab.thoughts.store import StoreError, ThoughtStore
from tests.thoughts.planted import noise, planted, sums

LETTERS = "0123456789=\n+ "
MARKERS = LatentTokens(start=14, latent=15, end=16)
WIDTH, VOCABULARY = 16, 17


class Letters:
    """A tokenizer of single characters."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, Any]:
        return {"input_ids": [LETTERS.index(c) for c in text]}

    def decode(self, token_ids: list[int]) -> str:
        return "".join(LETTERS[i] if i < len(LETTERS) else "<>" for i in token_ids)


def reasoner(**loop: Any) -> LatentReasoner:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, vocab_size=VOCABULARY)
    made = LatentReasoner(GPT2LMHeadModel(config), MARKERS, Loop(**loop)).eval()
    torch.nn.init.uniform_(made.model.transformer.ln_f.weight, 0.5, 2.0)
    return made


def test_ranks_by_hand() -> None:
    said = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert ranks(said, [(0,), (1,), (2,), (1, 2), ()]).tolist() == [
        [1, 4, 2.5, 2.5, math.inf],
        [2.5, 2.5, 2.5, 2.5, math.inf],
    ]


def test_the_first_token_with_and_without_a_blank() -> None:
    class Words(Letters):
        def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, Any]:
            return {"input_ids": {"13": [1, 3], " 13": [10], "x": [5], " x": [13, 5]}[text]}

    assert first_tokens(Words(), "13") == (1, 10)
    assert first_tokens(Words(), "x") == (5,)
    assert first_tokens(Letters(), "13") == (1,)


@torch.no_grad()
def test_the_norm_is_applied_once() -> None:
    made = reasoner()
    ids = torch.tensor([[1, 2, 3]])
    out = made.model(input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(logit_lens(made, 2)(out.hidden_states[-1][0]), out.logits[0])
    middle = out.hidden_states[1][0]
    torch.testing.assert_close(logit_lens(made, 1)(middle), made.model.lm_head(made.model.transformer.ln_f(middle)))
    torch.testing.assert_close(logit_lens(made, 0)(middle), made.model.lm_head(middle))
    torch.testing.assert_close(logit_lens(reasoner(feedback="before_norm"), 0)(middle), logit_lens(made, 1)(middle))


def test_an_input_embedding_is_its_own_token() -> None:
    made = reasoner()
    table = made.model.transformer.wte.weight.detach()
    assert ranks(embedding_lens(made)(3 * table), [(i,) for i in range(VOCABULARY)]).diagonal().tolist() == [1.0] * VOCABULARY


def test_an_affine_map_is_found() -> None:
    x, weight, bias = noise(400, 6, seed=0), noise(6, 6, seed=1), noise(6, seed=2)
    found = affine_map(x, x @ weight + bias)
    torch.testing.assert_close(found[0], weight, atol=0.01, rtol=0.01)
    torch.testing.assert_close(found[1], bias, atol=0.01, rtol=0.01)


@torch.no_grad()
def test_the_tuned_lens_says_what_the_last_layer_says(tmp_path: Path) -> None:
    made = reasoner()
    first = noise(400, 1, WIDTH, seed=3)
    last = first @ noise(WIDTH, WIDTH, seed=4)
    store = planted(tmp_path / "s", sums("train"), torch.stack([first, last, last], dim=2))
    said = tuned_lens(made, store, 0).scores(first[:, 0]).argmax(1)
    assert (said == logit_lens(made, 2)(last[:, 0]).argmax(1)).float().mean() > 0.95
    of_last = tuned_lens(made, store, 2)
    torch.testing.assert_close(of_last.scores(last[:, 0]), logit_lens(made, 2)(last[:, 0]))
    assert of_last.record == {"layer": 2, "n": 80, "n_problems": 80, "kept": "logit"}


def skewed(folder: Path) -> tuple[ThoughtStore, torch.Tensor]:
    """A store whose last layer grows with the square of a component: least squares follows its few long states."""
    first = noise(400, 2, WIDTH, seed=3)
    last = 10 * first[..., :1] ** 2 * (first @ noise(WIDTH, WIDTH, seed=4))
    return planted(folder, sums("train"), torch.stack([first, last, last], dim=2)), first[:, 0]


def test_where_the_closed_form_is_wrong_refining_lowers_the_divergence_of_problems_left_out(tmp_path: Path) -> None:
    made, (store, states) = reasoner(), skewed(tmp_path / "s")
    tuned = tuned_lens(made, store, 0)
    cost = tuned.record
    assert cost["kept"] == "refined"
    assert cost["refined"] < cost["logit"] < cost["closed_form"]
    assert cost["refined"] < cost["closed_form"] / 2
    assert cost["saved"]["value"] == pytest.approx(cost["closed_form"] - cost["refined"])
    assert 0 < cost["saved"]["low"] < cost["saved"]["value"] < cost["saved"]["high"]
    assert (cost["n"], cost["n_problems"]) == (160, 80)
    again = tuned_lens(made, store, 0)
    assert again.record == cost
    assert torch.equal(again.scores(states), tuned.scores(states))
    assert all(parameter.grad is None for parameter in made.parameters())


def test_the_closed_form_is_kept_where_refining_costs_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_tuned, "RATE", 30.0)
    states = noise(400, 1, WIDTH, seed=3)
    last = 10 * states @ noise(WIDTH, WIDTH, seed=4)
    cost = tuned_lens(reasoner(), planted(tmp_path / "s", sums("train"), torch.stack([states, last, last], dim=2)), 0).record
    assert cost["kept"] == "closed_form"
    assert cost["saved"]["high"] < 0


def test_no_map_is_kept_where_none_is_needed(tmp_path: Path) -> None:
    states = noise(400, 1, WIDTH, seed=3)
    store = planted(tmp_path / "s", sums("train"), torch.stack([states, states, states], dim=2))
    cost = tuned_lens(reasoner(), store, 0).record
    assert (cost["logit"], cost["kept"]) == (0.0, "logit")


def test_the_divergence_is_in_bits() -> None:
    halves, quarter = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    assert divergence(halves, quarter).tolist() == pytest.approx([0.5 * math.log2(2.0) + 0.5 * math.log2(2 / 3)])
    assert divergence(quarter, quarter).tolist() == pytest.approx([0.0])


@torch.no_grad()
def test_a_word_put_into_the_prompt_is_read_as_that_word() -> None:
    made = reasoner()
    scores = patchscope(made, Letters(), ["3", "7"])
    table = made.model.transformer.wte.weight
    for token in (2, 9):
        ids = Letters()("3=3\n7=7\n", add_special_tokens=True)["input_ids"] + [token] + [LETTERS.index("=")]
        torch.testing.assert_close(scores(table[[token]])[0], made.model(input_ids=torch.tensor([ids])).logits[0, -1])
    torch.testing.assert_close(scores(table[[2, 9]])[1], scores(table[[9]])[0])


@torch.no_grad()
def test_a_state_put_back_into_its_own_layer_changes_nothing_and_deep_ones_say_less() -> None:
    made = reasoner()
    ids = torch.tensor([Letters()("3=3\n7=7\n", add_special_tokens=True)["input_ids"] + [MARKERS.latent, LETTERS.index("=")]])
    out = made.model(input_ids=ids, output_hidden_states=True)
    own = out.hidden_states[1][:, -2]
    torch.testing.assert_close(patchscope(made, Letters(), ["3", "7"], 1)(own), out.logits[:, -1])
    assert not torch.allclose(patchscope(made, Letters(), ["3", "7"], 1)(-own), out.logits[:, -1])
    torch.testing.assert_close(patchscope(made, Letters(), ["3", "7"], 2)(-own), out.logits[:, -1])  # nothing sees it any more


def test_target_layers_and_the_problems_that_are_looked_at() -> None:
    assert [target_layers(blocks) for blocks in (1, 2, 3, 12)] == [(0,), (0, 1), (0, 1, 2), (0, 2, 4, 7, 9, 11)]
    assert num_problems([0, 1], (0, 1, 2), 5, there=4000) == 200
    assert num_problems([0, 1], (0, 1, 2), 5, there=150) == 150
    assert num_problems(range(13), (0, 2, 4, 7, 9, 11), 12, there=4000) == 10


def test_words_of_the_copy_prompt() -> None:
    assert example_words(ADDITION) == ["6", "13"]
    assert example_words(Grammar.__subclasses__()[0]("none", {})) == ["3", "7"]


def test_mass_on_digits_and_entropy() -> None:
    digits = is_digit(Letters(), VOCABULARY)
    assert digits.tolist() == [True] * 10 + [False] * 7

    def flat(states: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(states), VOCABULARY)

    seen = look(flat, torch.zeros(3, 2), {"f": [(0,), (1,)]}, digits, torch.device("cpu"))
    assert seen.digits.tolist() == pytest.approx([10 / 17] * 3)
    assert seen.entropy.tolist() == pytest.approx([math.log2(17)] * 3)
    assert seen.ranks["f"].tolist() == [[9.0, 9.0]] * 3


# The report


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[ThoughtStore, ThoughtStore]:
    """Slot 1 holds the embedding of the digit that step 1 writes, slot 2 noise; layers 1 and 2 hold noise."""
    table, folder, made = reasoner().model.transformer.wte.weight.detach(), tmp_path_factory.mktemp("stores"), []
    for split in ("train", "test"):
        problems = sums(split)
        states = 0.02 * noise(len(problems), 2, 3, WIDTH, seed=len(split))
        states[:, 0, 0] = table[[int((ADDITION.parse(p.steps[0]) or {})["write"]) for p in problems]]
        made.append(planted(folder / split, problems, states))
    return made[0], made[1]


def test_what_is_there_is_seen_and_another_problems_is_not(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    found = lens_report(*stores, reasoner(), Letters(), ADDITION, [0, 1], patchscope_problems=50)
    assert tuple(found) == LENSES
    written = found["embedding"]["fields"]["write"]
    assert written["hit1"][0][0] == written["mrr"][0][0] == written["hit1_low"][0][0] == 1.0
    assert written["floor_hit1"][0][0] < 0.2
    assert written["hit1"][1][0] < 0.2
    assert written["n"] == [200, 200]
    whole = found["embedding"]["sources"]["real"]["fields"]["write"]["hit1"]
    assert whole["value"][0] == pytest.approx((200 + 200 * written["hit1"][1][0]) / 400, abs=1e-4)
    assert whole["gain_low"][0] > 0.3
    assert whole["value"][1] < 0.2
    assert found["embedding"]["entropy"] == [[None, None], [None, None]]
    assert found["logit"]["digit_mass"][0][0] == pytest.approx(10 / 17, abs=0.1)
    assert found["patchscope"]["fields"]["write"]["n"] == [50, 50]
    assert set(found["tuned"]["fields"]) == set(ADDITION.values)
    json.dumps(found, allow_nan=False)


def test_every_source_is_scored_and_none_but_the_real_one_is_above_its_floor(
    stores: tuple[ThoughtStore, ThoughtStore],
) -> None:
    start = stores[1].layer(0)[:, 0]
    found = lens_report(*stores, reasoner(), Letters(), ADDITION, [0, 1], lenses=["embedding"], start=start)["embedding"]
    scores = {name: each["fields"]["write"]["hit1"] for name, each in found["sources"].items()}
    controls = ("zero", "mean", "random", "shuffled", "shuffled_in_stratum", "label_swapped")
    assert tuple(scores) == ("real", *controls, "start")
    assert scores["real"]["gain_low"][0] > 0.3
    for name in controls:  # a donor's digit is in its vector, so a floor that asked for that one's step would be near a half
        assert scores[name]["value"][0] < 0.2
        assert scores[name]["floor"][0] < 0.2
        assert scores[name]["gain_low"][0] < 0.05
    assert scores["zero"]["value"] == scores["zero"]["floor"] == [0.0, 0.0]
    assert scores["start"]["value"][1] is None
    assert found["sources"]["mean"]["fields"]["write"]["n"] == 400
    assert tuple(found["sources_left_out"]) == ("none", "other_seed", "text_only")


def test_the_target_layer_is_chosen_on_training_problems(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    found = lens_report(*stores, reasoner(), Letters(), ADDITION, [0, 1], lenses=["patchscope"], patchscope_problems=20)
    swept = found["patchscope"]["targets"]
    assert (swept["targets"], swept["layers"], swept["n_problems"]) == ([0, 1], [0, 1], 400)
    assert set(swept["chosen"]) <= {0, 1}
    assert swept["fields"]["write"]["n"] == [[800, 800], [800, 800]]
    fewer = lens_report(*stores, reasoner(), Letters(), ADDITION, [0, 1], lenses=["patchscope"], patchscope_problems=5)
    assert fewer["patchscope"]["targets"] == swept


def test_a_report_is_the_same_again_and_leaves_the_model_as_it_was(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    made = reasoner().train()
    first = lens_report(*stores, made, Letters(), ADDITION, [0], lenses=["logit"])
    assert made.training
    assert first == lens_report(*stores, made, Letters(), ADDITION, [0], lenses=["logit"])
    assert first != lens_report(*stores, made, Letters(), ADDITION, [0], lenses=["logit"], seed=1)


def test_a_slot_may_stand_for_another_step(stores: tuple[ThoughtStore, ThoughtStore]) -> None:
    found = lens_report(*stores, reasoner(), Letters(), ADDITION, [0], lenses=["embedding"], slots_to_steps=[None, 0])
    assert found["embedding"]["fields"]["write"]["hit1"][0] == [None]
    assert found["embedding"]["fields"]["write"]["n"] == [0, 200]


def test_what_cannot_be_had(stores: tuple[ThoughtStore, ThoughtStore], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="share 200 problems"):
        lens_report(stores[1], stores[1], reasoner(), Letters(), ADDITION, [0])
    with pytest.raises(ValueError, match="lens=magnifying: allowed are logit, embedding, tuned, patchscope"):
        lens_report(*stores, reasoner(), Letters(), ADDITION, [0], lenses=["magnifying"])
    short = planted(tmp_path / "short", sums("train"), noise(400, 2, 1, WIDTH, seed=0))
    found = lens_report(short, stores[1], reasoner(), Letters(), ADDITION, [0], lenses=["tuned"])
    assert found["tuned"] == {"why": "the store does not hold the last layer, which the map is fitted to"}
    assert can_spell(symbol_tokenizer(), "3 7")
    assert not can_spell(symbol_tokenizer(), "3=7")


def test_where_no_problem_has_a_step_to_ask_about_there_is_no_score() -> None:
    (row,) = by_layer(Resampler(2), [[None, None]])
    assert row["n"] == 0
    assert row["hit1"]["value"] == [None, None]
