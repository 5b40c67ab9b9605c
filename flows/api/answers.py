"""What the model answers, at the door."""

from fastapi import APIRouter

from flows.api.bodies import PredictAsked, Predicted
from flows.api.callers import Readers
from flows.api.once import OnceRoute
from flows.api.problems import Refused
from flows.api.requests import Desks
from flows.use_cases.answering import Question

router = APIRouter(tags=["answers"], route_class=OnceRoute)


@router.post("/predict")
async def predict(body: PredictAsked, desk: Desks, check: Readers) -> Predicted:
    """What the version that serves answers: labels with their probabilities, a number, or a text,
    as `s3t predict --json` tells it. Over an erasure the version that serves then answers; while
    none may, 503."""
    given = [part for part in (body.texts, body.pairs, body.messages) if part]
    if len(given) != 1:
        raise Refused(
            422,
            "Malformed",
            f"expected one of texts, pairs and messages, got {len(given)}. Ask with one of them",
        )
    chats = [{"messages": [turn.model_dump() for turn in chat]} for chat in body.messages]
    answered = await desk.answer(
        Question((*body.texts, *body.pairs, *chats), _how(body) if _writes(body) else {})
    )
    check()
    return {"answers": list(answered.answers), "version": answered.version}


def _writes(body: PredictAsked) -> bool:
    """Whether anything is said of how a language model writes."""
    return bool({"max_new_tokens", "temperature", "seed"} & body.model_fields_set)


def _how(body: PredictAsked) -> dict[str, object]:
    options: dict[str, object] = {"temperature": body.temperature, "seed": body.seed}
    return (
        options
        if body.max_new_tokens is None
        else options | {"max_new_tokens": body.max_new_tokens}
    )
