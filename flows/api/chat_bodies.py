"""What OpenAI's clients send to ask a language model, and what they are told: the members of their
API that mean something here, and those that may only have the one value that changes nothing."""

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from flows.api.bodies import Body, Text
from flows.use_cases.answering import Question


class TextPart(Body):
    """Some of what one said."""

    type: Literal["text"]
    text: Text


class ChatTurn(Body):
    """What one said. `name` changes nothing, and is kept nowhere."""

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=100)]
    name: Annotated[str, Field(max_length=100)] | None = None

    def message(self) -> dict[str, str]:
        """As a chat of ours has it."""
        said = self.content
        text = said if isinstance(said, str) else "".join(part.text for part in said)
        return {"role": self.role, "content": text}


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool = False


class PlainText(Body):
    """The one form of an answer."""

    type: Literal["text"] = "text"


Tokens = Annotated[int, Field(ge=1, le=4096)]


class ChatAsked(Body):
    """A chat that the user spoke last in. `user` and `metadata` change nothing, and are kept
    nowhere."""

    model: Annotated[str, Field(max_length=200, description="the name that /v1/models tells")]
    messages: Annotated[list[ChatTurn], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Tokens | None = None
    max_tokens: Annotated[Tokens | None, Field(description="the same, as it was called")] = None
    temperature: Annotated[
        float | None, Field(ge=0, le=10, description="0, the default: the likeliest token")
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=1000)] | None = None
    metadata: dict[str, Any] | None = None
    n: Literal[1] | None = None
    top_p: Annotated[float | None, Field(ge=1, le=1)] = None
    presence_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    logprobs: Literal[False] | None = None
    store: Literal[False] | None = None
    response_format: PlainText | None = None

    def question(self) -> Question:
        """What the model is asked."""
        most = self.max_completion_tokens or self.max_tokens
        how: dict[str, object] = {"temperature": self.temperature or 0.0, "seed": self.seed or 0}
        how |= {} if most is None else {"max_new_tokens": most}
        return Question(({"messages": [turn.message() for turn in self.messages]},), how)


class Usage(TypedDict):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class Choice(TypedDict):
    """The answer; there is one."""

    index: int
    message: Message
    finish_reason: Literal["stop", "length"]
    logprobs: None


class ChatCompletion(TypedDict):
    """An answer. `system_fingerprint` is the model version that gave it."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage


class ModelEntry(TypedDict):
    """A model that may be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """The one that there is."""

    object: Literal["list"]
    data: list[ModelEntry]
