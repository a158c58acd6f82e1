"""What OpenAI's and Anthropic's Python clients get from one server, as one line of JSON: a list of [case, value].

    python3 python_clients.py http://127.0.0.1:8080
"""

import asyncio
import json
import sys

import anthropic
import openai
from pydantic import BaseModel

URL = sys.argv[1]
QUESTION = [{"role": "user", "content": "Name three colours of the rainbow."}]
PLAIN = {"temperature": 0, "seed": 1}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
OPENAI = {"base_url": f"{URL}/v1", "api_key": "none", "max_retries": 0}
ANTHROPIC = {"base_url": URL, "api_key": "none", "max_retries": 0}

client = openai.OpenAI(**OPENAI)
claude = anthropic.Anthropic(**ANTHROPIC)
cases = []


def case(function):
    cases.append([function.__name__, function()])


def plain(value):
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@case
def openai_models():
    return [plain(model) for model in client.models.list().data]


@case
def openai_chat():
    return plain(client.chat.completions.create(model="test", messages=QUESTION, max_tokens=24, **PLAIN))


def joined(chunks):
    """Chunks come as the steps gave them: what counts is the text and the last of everything else."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usage": plain(chunks[-1].usage),
        "model": chunks[0].model,
    }


@case
def openai_stream():
    stream = client.chat.completions.create(
        model="test", messages=QUESTION, max_tokens=24, stream=True, stream_options={"include_usage": True}, **PLAIN
    )
    return joined(list(stream))


@case
def openai_async_streams_at_once():
    async def one(asynchronous, content):
        stream = await asynchronous.chat.completions.create(
            model="test", messages=[{"role": "user", "content": content}], max_tokens=16, stream=True, **PLAIN
        )
        return joined([chunk async for chunk in stream])

    async def both():
        async with openai.AsyncOpenAI(**OPENAI) as asynchronous:
            return await asyncio.gather(one(asynchronous, "Name a city."), one(asynchronous, "Name an animal."))

    return asyncio.run(both())


@case
def openai_tools():
    # the model's template has no tools, so it calls none; what it says must come through all the same
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris","days":1}'}}
    return plain(
        client.chat.completions.create(
            model="test",
            messages=[
                {"role": "user", "content": "How is the weather in Paris?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
            ],
            tools=[{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}],
            tool_choice="auto",
            max_tokens=24,
            **PLAIN,
        )
    )


@case
def openai_json_schema():
    answer = client.chat.completions.create(
        model="test",
        messages=[{"role": "user", "content": "A trip, as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "trip", "schema": WEATHER, "strict": True}},
        max_tokens=100,
        **PLAIN,
    )
    return {"answer": plain(answer), "parsed": json.loads(answer.choices[0].message.content)}


@case
def openai_responses():
    return plain(client.responses.create(model="test", input="Say hello.", max_output_tokens=16, temperature=0))


@case
def openai_error():
    try:
        client.chat.completions.create(model="test", messages=[], response_format={"type": "nonsense"})
    except openai.APIStatusError as error:
        return {"type": type(error).__name__, "status": error.status_code, "body": error.body}
    return "answered"


@case
def openai_abort():
    stream = client.chat.completions.create(
        model="test", messages=QUESTION, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    seen = 0
    for _chunk in stream:
        seen += 1
        if seen == 3:
            stream.close()
            break
    return seen


# this client knows no temperature any more
MESSAGE = {"model": "test", "max_tokens": 24, "messages": QUESTION, "extra_body": {"temperature": 0}}


@case
def anthropic_message():
    return plain(claude.messages.create(**MESSAGE))


@case
def anthropic_stream():
    with claude.messages.stream(**MESSAGE) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "message": plain(stream.get_final_message())}


@case
def anthropic_tools():
    use = {"type": "tool_use", "id": "use_1", "name": "weather", "input": {"city": "Paris", "days": 1}}
    messages = [
        {"role": "user", "content": "How is the weather in Paris?"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "use_1", "content": "sunny"}]},
    ]
    tools = [{"name": "weather", "input_schema": WEATHER}]
    return plain(claude.messages.create(**{**MESSAGE, "messages": messages, "tools": tools}))


@case
def anthropic_count_tokens():
    return {"counted": claude.messages.count_tokens(model="test", messages=QUESTION).input_tokens}


@case
def anthropic_abort():
    with claude.messages.stream(**{**MESSAGE, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}) as stream:
        seen = 0
        for _text in stream.text_stream:
            seen += 1
            if seen == 3:
                break
    return seen


print(json.dumps(cases))
