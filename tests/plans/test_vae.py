"""The soft-quantised autoencoder: its loss against the formula, and that what it learned comes back."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_lab.plans.arithmetic import operators
from latent_lab.plans.information import by_chance, entropy, mutual_information
from latent_lab.plans.vae import FORMS, SoftVAE
from latent_lab.plans.vae_training import CODE, HardQuantised, SoftQuantised, encoder_of, loss_of
from latent_lab.problems.stories import Stories
from tests.tiny import save_hub_model

POINTS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
OWNERS = torch.tensor([0, 0, 1])


def plan(**settings: Any) -> SoftVAE:
    return SoftVAE(**{"model": "m", "clusters": 3, **settings})


def weights(form: str, apart: float = 0.5) -> dict[str, Any]:
    """The settings of a form that has use for them."""
    return {"form": form, **({"apart": apart} if form == "contrastive" else {})}


def by_hand(model: SoftQuantised, noise: torch.Tensor, kl: float, form: str, apart: float = 0.0) -> float:
    """The loss written out step by step."""
    codes, made, divergence = [], [], 0.0
    for point, draw in zip(POINTS, noise, strict=True):
        out = model.encoder(point)
        mean, log_variance = out[:3], out[3:]
        z = mean + draw * torch.exp(log_variance) ** 0.5
        code = model.codes.weight @ (torch.exp(z) / torch.exp(z).sum())
        codes.append(code)
        made.append(model.decoder(code))
        divergence += float(0.5 * sum(m**2 + torch.exp(v) - 1 - v for m, v in zip(mean, log_variance, strict=True)))
    pairs = [(made[0], POINTS[1])] if form == "next_step" else list(zip(made, POINTS, strict=True))
    error = sum(float(0.5 * ((a - b) ** 2).sum()) for a, b in pairs) / len(pairs)
    neighbours = 2 * float(((codes[0] - codes[1]) ** 2).mean())  # steps 0 and 1, in both directions; step 2 is another problem's
    return error + kl * divergence / 3 - apart * neighbours


@pytest.mark.parametrize(("form", "apart"), [("plain", 0.0), ("contrastive", 0.5), ("next_step", 0.0)])
def test_the_loss_is_the_formula(form: str, apart: float) -> None:
    torch.manual_seed(0)
    model, noise = SoftQuantised(2, 3), torch.randn(3, 3)
    with torch.no_grad():
        loss = loss_of(plan(kl=0.3, **weights(form)), model, POINTS, OWNERS, noise)
        assert float(loss) == pytest.approx(by_hand(model, noise, 0.3, form, apart), rel=1e-4)


def test_hard_codes_cost_what_the_formula_says_and_follow_what_is_nearest_to_them() -> None:
    torch.manual_seed(0)
    model = HardQuantised(2, 2, seed=0)
    made, encoded, chosen = model(POINTS)
    with torch.no_grad():
        codes = model.codes[chosen]
        distances = [[float(((z - code) ** 2).sum()) for code in model.codes] for z in encoded]
        assert chosen.tolist() == [row.index(min(row)) for row in distances]
        torch.testing.assert_close(made, model.decoder(codes), rtol=1e-4, atol=1e-5)
        error = 0.5 * float(((made - POINTS) ** 2).sum()) / 3
        commitment = 0.25 * sum(map(min, distances)) / 3
        assert float(model.loss(POINTS)) == pytest.approx(error + commitment, rel=1e-4)
        model.counts = torch.tensor([3.0, 1.0])
        before, number = model.codes.clone(), chosen.tolist()
        model.move(POINTS)
        for k, count in enumerate((3.0, 1.0)):
            mine = [z for z, chose in zip(encoded, number, strict=True) if chose == k]
            weight = 0.99 * count + 0.01 * len(mine)
            assert float(model.counts[k]) == pytest.approx(weight)
            expected = (0.99 * count * before[k] + 0.01 * sum(mine, torch.zeros(CODE))) / weight
            torch.testing.assert_close(model.codes[k], expected, rtol=1e-4, atol=1e-6)


def test_a_hard_code_passes_the_gradient_on_to_the_encoder() -> None:
    torch.manual_seed(0)
    model = HardQuantised(2, 2, seed=0)
    made, encoded, _ = model(POINTS)
    (gradient,) = torch.autograd.grad((made**2).sum(), encoded)
    at = model.codes[model(POINTS)[2]].requires_grad_()
    (expected,) = torch.autograd.grad((model.decoder(at) ** 2).sum(), at)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_a_neighbours_code_is_not_moved() -> None:
    torch.manual_seed(0)
    model, noise = SoftQuantised(2, 3), torch.zeros(3, 3)
    of = {form: loss_of(plan(kl=0.0, **weights(form, 1.0)), model, POINTS, OWNERS, noise) for form in ("plain", "contrastive")}
    apart = of["plain"] - of["contrastive"]
    (gradient,) = torch.autograd.grad(apart, model.codes.weight, retain_graph=True)
    _, codes, *_ = model(POINTS, noise)
    whole = 2 * ((codes[0] - codes[1]) ** 2).mean()
    (full,) = torch.autograd.grad(whole, model.codes.weight)
    torch.testing.assert_close(gradient, full / 2, rtol=1e-4, atol=1e-7)  # each pair moves one of its two ends at a time


@pytest.mark.parametrize("form", FORMS)
def test_points_far_apart_get_codes_of_their_own_and_training_leaves_no_trace(form: str) -> None:
    rng = np.random.default_rng(0)
    corners = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]])
    vectors = [(corners[[i % 3, (i + 1) % 3]] + rng.normal(0, 0.1, (2, 3))).astype(np.float32) for i in range(120)]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    made = plan(form=form, epochs=20)
    made.arrays = encoder_of(made, vectors)
    assert torch.equal(torch.rand(1), expected)
    found = made.nearest(corners.astype(np.float32)).tolist()
    assert len(set(found)) == 3
    assert [made.nearest(each).tolist() for each in vectors] == [[found[i % 3], found[(i + 1) % 3]] for i in range(120)]
    again = encoder_of(plan(form=form, epochs=20), vectors)
    assert all((again[name] == array).all() for name, array in made.arrays.items())


@pytest.mark.parametrize("form", FORMS)
def test_kinds_of_steps_do_not_collapse_and_tell_more_of_operators_than_chance(form: str, tmp_path: Path) -> None:
    """On vectors of a model that was never trained; steps that were not fitted on count."""
    stories = Stories(train_size=300, valid_size=100)
    made = plan(model=str(save_hub_model(tmp_path / "model", "llama")), form=form, clusters=5)
    made.outputs = tmp_path
    made.fit(stories.load("train"))
    valid = stories.load("valid")
    told = [label[0] for labels in made.labels(valid) for label in labels]
    pairs = list(zip(told, [" ".join(operators(step)) for p in valid for step in p.steps], strict=True))
    assert entropy(told) > 1.5
    assert mutual_information(pairs) > 2 * by_chance(pairs)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_kept_on_disk_like_clusters(form: str, tmp_path: Path) -> None:
    train = Stories(train_size=20).load("train")
    model = str(save_hub_model(tmp_path / "model", "gpt2"))
    made, again = (plan(model=model, form=form, epochs=1) for _ in range(2))
    made.outputs, again.outputs = tmp_path / "a", tmp_path / "b"
    made.fit(train)
    made.save(tmp_path)
    again.load(tmp_path)
    assert again.labels(train) == made.labels(train)
    assert made.kinds() == ("answer", "assignment", "vae0", "vae1", "vae2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "x"}, "form=x: allowed are plain, contrastive, next_step, hard"),
        ({"form": "hard", "kl": 1.0}, "kl=1.0: form=hard has no such weight; allowed: leave it out"),
        ({"apart": 1.0}, "apart=1.0: form=plain has no such weight; allowed: leave it out"),
        ({"epochs": 0}, "epochs=0: allowed are 1 and more"),
        ({"kl": -1.0}, "kl=-1.0: allowed are weights of 0 and more"),
        ({"lr": 0.0}, "lr=0.0: allowed are numbers above 0"),
    ],
)
def test_an_impossible_setting_says_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan(**settings)
