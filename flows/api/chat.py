"""A language model as OpenAI's clients ask one: chats, whole or as a stream of server-sent events.

Members that would change the answer in a way that this model does not know are refused by name, not
passed over. One differs from OpenAI's own: without a `temperature` the likeliest token is taken. An
error is a problem document (RFC 9457) with an `error` in it, as their clients show it.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from flows.api.callers import Readers, may_predict
from flows.api.chat_bodies import (
    ChatAsked,
    ChatCompletion,
    Choice,
    Message,
    ModelEntry,
    Models,
    Usage,
)
from flows.api.desk import Desk
from flows.api.once import OnceRoute
from flows.api.problems import Refused
from flows.api.requests import Desks
from flows.use_cases.documents import Answer
from s3t_core.errors import S3TError

router = APIRouter(tags=["answers, as OpenAI's clients ask"], route_class=OnceRoute)
_EVENTS = "text/event-stream"


@router.get("/models", dependencies=[Depends(may_predict)])
async def models(desk: Desks) -> Models:
    """The name of the model that serves, whichever version that is."""
    entry: ModelEntry = {
        "id": await _name(desk),
        "object": "model",
        "created": 0,
        "owned_by": "s3t",
    }
    return {"object": "list", "data": [entry]}


@router.post(
    "/chat/completions",
    responses={200: {"model": ChatCompletion, "content": {_EVENTS: {}}}},
    response_model=None,
)
async def chat_completions(
    body: ChatAsked, desk: Desks, check: Readers
) -> ChatCompletion | StreamingResponse:
    """What a language model says next: at once, or with `stream` piece by piece. A stream ends with
    an `error` where an erasure has another version serve from then on, or the token was revoked:
    what was written by then and not read is not given out."""
    name = await _name(desk)
    if body.model != name:
        raise Refused(
            404,
            "NotThere",
            "expected the model that /v1/models names, got another. Ask for that one",
        )
    number, now = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        version, pieces = await desk.stream(body.question(), check)
        of = {
            "id": number,
            "created": now,
            "model": name,
            "system_fingerprint": version,
        }
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        more = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            _events(of, pieces, with_usage),
            200,
            more,
            _EVENTS,
        )
    answered = await desk.answer(body.question())
    check()
    (answer,) = answered.answers
    if "text" not in answer:
        raise Refused(
            422,
            "UsageError",
            "expected a model that writes texts, got one that labels them. Ask /api/v1/predict",
        )
    said: Message = {
        "role": "assistant",
        "content": answer["text"],
        "refusal": None,
    }
    choice: Choice = {
        "index": 0,
        "message": said,
        "finish_reason": answer["finish"],
        "logprobs": None,
    }
    return {
        "id": number,
        "object": "chat.completion",
        "created": now,
        "model": name,
        "system_fingerprint": answered.version,
        "choices": [choice],
        "usage": _usage(answer),
    }


async def _name(desk: Desk) -> str:
    return await desk.read(lambda workspace: workspace.config.system.name)


def _usage(answer: Answer) -> Usage:
    read, wrote = answer["prompt_tokens"], answer["tokens"]
    return {
        "prompt_tokens": read,
        "completion_tokens": wrote,
        "total_tokens": read + wrote,
    }


async def _events(
    of: Mapping[str, object], pieces: AsyncIterator[Answer], with_usage: bool
) -> AsyncIterator[str]:
    """The stream: who speaks, the pieces, how it ended, and that it has."""
    try:
        yield _chunk(of, {"role": "assistant", "content": ""})
        async for piece in pieces:
            if "finish" not in piece:
                yield _chunk(of, {"content": piece["text"]})
                continue
            yield _chunk(of, {}, piece["finish"])
            if with_usage:
                yield _event({**of, "choices": [], "usage": _usage(piece)})
        yield "data: [DONE]\n\n"
    except (S3TError, Refused) as error:
        refusal = {
            "message": str(error),
            "type": type(error).__name__,
            "param": None,
            "code": None,
        }
        yield _event({"error": refusal})


def _chunk(of: Mapping[str, object], delta: Mapping[str, str], finish: str | None = None) -> str:
    choice = {
        "index": 0,
        "delta": delta,
        "finish_reason": finish,
        "logprobs": None,
    }
    return _event({**of, "choices": [choice]})


def _event(data: Mapping[str, object]) -> str:
    kind = {} if "error" in data else {"object": "chat.completion.chunk"}
    return f"data: {json.dumps({**data, **kind})}\n\n"
