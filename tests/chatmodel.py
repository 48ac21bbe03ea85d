"""A real GPT-2 with a chat template that replies with a verdict: a tokenizer and weights made by hand, in half a second."""

from pathlib import Path

PLANNING = '{"reason": "a step is missing", "kind": "planning"}'
EXECUTION = '{"reason": "7*8 is not 54", "kind": "execution"}'
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_chat_model(
    folder: Path, verdicts: tuple[str, ...] = (PLANNING,), *, template: bool = True, positions: int = 4096
) -> Path:
    """Write a model that, after ``<|assistant|>`` (without a template: after a blank line), writes one of ``verdicts``, each as
    likely as the others and as one token, and stops."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *sorted(alphabet)])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(specials)
    made.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", *verdicts)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")
    if template:
        tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": positions}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False))
    asked = tokenizer.convert_tokens_to_ids("<|assistant|>" if template else "\n\n")
    said = [tokenizer.convert_tokens_to_ids(text) for text in verdicts]
    with torch.no_grad():
        body = model.transformer
        body.wpe.weight[:] = 0
        for output in (body.h[0].attn.c_proj, body.h[0].mlp.c_proj):  # so that only the last token decides what comes next
            output.weight[:] = 0
        body.wte.weight[:, :2] = 0
        body.wte.weight[asked, 0] = body.wte.weight[said, 1] = 20.0
        model.lm_head.weight[:] = 0
        model.lm_head.weight[said, 0] = model.lm_head.weight[0, 1] = 50.0
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rambling_model(folder: Path, answers: tuple[str, ...]) -> Path:
    """Write a greedy model that rambles: after any prompt a few words, answers and ends of thinking, others after each prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    phrases = (" so", " then", " but", " wait", "</think>", *answers)
    tokenizer = AutoTokenizer.from_pretrained(save_chat_model(folder, phrases))
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(2)
    for weights in model.parameters():
        if weights.dim() > 1:
            weights.data.normal_(0, 0.3)
    known = {0, *(tokenizer.convert_tokens_to_ids(text) for text in phrases)}
    for token in known:
        model.lm_head.weight.data[token].normal_()
    model.generation_config.suppress_tokens = sorted(set(range(len(tokenizer))) - known)
    model.save_pretrained(folder)
    return folder
