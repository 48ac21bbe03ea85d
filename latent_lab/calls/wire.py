"""How a request goes over the wire: as a chat, or as one text to be continued; and how a reply may be begun for the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latent_lab.calls.reply import clean

if TYPE_CHECKING:
    from latent_lab.calls.client import Request

PREFILLS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "message": {},
    "vllm": {"add_generation_prompt": False, "continue_final_message": True},
}
"""How a chat server is told to continue a reply that is begun: it cannot be; a last message of the assistant says it; vLLM's
two fields say it beside that message."""


class PrefillError(ValueError):
    """A reply was to be begun for a model whose server only takes whole conversations."""


@dataclass(frozen=True, slots=True)
class ChatWire:
    """``/chat/completions``: messages."""

    path: ClassVar[str] = "/v1/chat/completions"
    """Where each call of a batch goes."""
    prefill: str = "none"

    @property
    def can_prefill(self) -> bool:
        """Whether a reply can be begun."""
        return PREFILLS[self.prefill] is not None

    def asked(self, request: "Request") -> dict[str, Any]:
        """The fields of the body that hold what is asked; :class:`PrefillError` where a reply is begun and cannot be."""
        messages = [dict(message) for message in request.messages]
        if not request.prefix:
            return {"messages": messages}
        if (fields := PREFILLS[self.prefill]) is None:
            raise PrefillError(
                "prefill: given none, and a reply is to be continued; allowed: message or vllm where the server can, or "
                "api=completions"
            )
        return {"messages": [*messages, {"role": "assistant", "content": request.prefix}], **fields}

    async def send(self, api: Any, model: str, asked: dict[str, Any], params: dict[str, Any]) -> Any:
        """Send a body and return the raw response."""
        messages = [{name: clean(text) for name, text in message.items()} for message in asked["messages"]]
        further = {name: value for name, value in asked.items() if name != "messages"}
        return await api.chat.completions.with_raw_response.create(model=model, messages=messages, extra_body=params | further)


@dataclass(frozen=True, slots=True)
class TextWire:
    """``/completions``: one text, made from the messages by ``render``, and whatever the reply begins with."""

    path: ClassVar[str] = "/v1/completions"
    render: Callable[[Any], str]
    can_prefill = True

    def asked(self, request: "Request") -> dict[str, Any]:
        """The field of the body that holds what is asked."""
        return {"prompt": self.render(request.messages) + request.prefix}

    async def send(self, api: Any, model: str, asked: dict[str, Any], params: dict[str, Any]) -> Any:
        """Send a body and return the raw response."""
        return await api.completions.with_raw_response.create(model=model, prompt=clean(asked["prompt"]), extra_body=params)


Wire = ChatWire | TextWire


def paragraphs(messages: Any) -> str:
    """Messages as a text, for models without a chat template."""
    return "\n\n".join([*(message["content"] for message in messages), ""])
