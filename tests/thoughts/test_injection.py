"""Vectors are added where they should be, with the length they should have, in the prompt alone; and no hook stays behind."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from latent_lab.feedback import blocks_of
from latent_lab.thoughts.injection import Adapter, InjectionError, Places, added, injected, replaced


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=32)).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=20, **shape)).eval()


def places(length: int = 5) -> Places:
    return Places(torch.tensor([0]), torch.tensor([1]), torch.randn(1, 8), length)


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_what_is_added_has_the_length_of_the_state_times_the_scale() -> None:
    hidden = torch.zeros(1, 2, 2)
    hidden[0, 1] = torch.tensor([3.0, 4.0])
    at = Places(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.0, 7.0]]), 2)
    assert added(hidden, at, 2.0).tolist() == [[[0.0, 0.0], [3.0, 14.0]]]


def test_what_replaces_a_state_stands_there_as_it_is() -> None:
    at = Places(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.0, 7.0]]), 2)
    assert replaced(torch.ones(1, 2, 2), at).tolist() == [[[1.0, 1.0], [0.0, 7.0]]]


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_prompt_given_its_own_state_goes_on_as_it_did(make: type, layer: int) -> None:
    model = make()
    ids = torch.randint(0, 20, (1, 5), generator=torch.Generator().manual_seed(1))
    out = model(ids, output_hidden_states=True)
    before = hooks(model)
    state = model.get_input_embeddings()(ids)[:, 1] if layer == 0 else out.hidden_states[layer][:, 1]
    for vectors, is_same in ((state, True), (-state, False)):
        at = Places(torch.tensor([0]), torch.tensor([1]), vectors, 5)
        with injected(model, [layer], at, replace=True):
            assert torch.allclose(model(ids).logits, out.logits, atol=1e-6) == is_same
    assert hooks(model) == before


def test_the_zero_vector_adds_nothing() -> None:
    hidden = torch.randn(1, 2, 2)
    at = Places(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 2), 2)
    assert torch.equal(added(hidden, at, 1.0), hidden)


def test_no_gradient_flows_through_the_length() -> None:
    hidden = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    vectors = torch.tensor([[1.0, 1.0]], requires_grad=True)
    added(hidden, Places(torch.tensor([0]), torch.tensor([0]), vectors, 1), 1.0).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[[1.0, 1.0]]]
    assert vectors.grad is not None


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_injection_changes_its_row_from_its_column_on_and_leaves_no_trace(make: type, layer: int) -> None:
    model = make()
    ids = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(1))
    plain = model(ids).logits
    with injected(model, [layer], places(), 1.0):
        changed = model(ids).logits
    assert torch.equal(changed[1], plain[1])
    assert torch.equal(changed[0, 0], plain[0, 0])
    assert not torch.allclose(changed[0, 1], plain[0, 1])
    assert torch.equal(model(ids).logits, plain)
    assert hooks(model) == 0


def test_hooks_are_gone_after_an_error_and_unknown_layers_are_refused() -> None:
    model = gpt2()
    with pytest.raises(KeyError), injected(model, [0, 1], places()):
        raise KeyError
    assert hooks(model) == 0
    with pytest.raises(InjectionError, match="allowed are 0"), injected(model, [1, 3], places()):
        pass
    assert hooks(model) == 0


def test_no_places_inject_nothing() -> None:
    model = gpt2()
    with injected(model, [0], None):
        assert hooks(model) == 0


def test_a_block_that_returns_a_tuple_keeps_the_rest_of_it() -> None:
    class Block(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, str]:
            return hidden, "rest"

    model = gpt2()
    model.transformer.h[0] = Block()
    hidden = torch.ones(1, 5, 8)
    with injected(model, [1], places()):
        changed, rest = model.transformer.h[0](hidden)
    assert rest == "rest"
    assert not torch.equal(changed, hidden)


def test_tokens_decoded_after_the_prompt_are_left_alone() -> None:
    model = gpt2()
    seen = []
    at = places()
    with injected(model, [1], at):
        handle = blocks_of(model)[0].register_forward_hook(lambda m, a, out: seen.append((a[0].shape[1], out)))
        model.generate(torch.ones(1, 5, dtype=torch.long), attention_mask=torch.ones(1, 5), max_new_tokens=4, min_new_tokens=4,
                       do_sample=False, pad_token_id=0)  # fmt: skip
        handle.remove()
    assert [length for length, _ in seen] == [5, 1, 1, 1]
    with injected(model, [1], at):
        hidden = torch.randn(1, 1, 8)
        first = blocks_of(model)[0](hidden)
    assert torch.equal(first, blocks_of(model)[0](hidden))


def test_centring_and_whitening_follow_the_training_thoughts() -> None:
    torch.manual_seed(0)
    thoughts = torch.randn(4000, 3) * torch.tensor([1.0, 5.0, 0.2]) + 7
    centred, white = Adapter("centred", 3, 3), Adapter("whitened", 3, 3)
    centred.fit(thoughts)
    white.fit(thoughts)
    assert centred(thoughts).mean(0).abs().max() < 1e-4
    before = torch.linalg.eigvalsh(torch.cov(thoughts.T.double()))
    after = torch.linalg.eigvalsh(torch.cov(white(thoughts).T.double()))
    torch.testing.assert_close(after, before / (before + 0.01 * before.mean()), atol=1e-4, rtol=0.0)


def test_a_learned_adapter_starts_as_the_identity_and_alone_changes_the_width() -> None:
    thoughts = torch.randn(2, 3)
    assert torch.equal(Adapter("learned", 3, 3)(thoughts), thoughts)
    assert Adapter("learned", 3, 5)(thoughts).shape == (2, 5)
    with pytest.raises(InjectionError, match="allowed: learned"):
        Adapter("raw", 3, 5)
