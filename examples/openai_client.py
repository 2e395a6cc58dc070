"""Serve a plan over HTTP and talk to it with the official `openai` client, as any OpenAI application would.

    python examples/openai_client.py [BASE_URL]

Without BASE_URL the laptop cluster with SmolLM2-135M is planned, started and closed again. With one (say,
http://127.0.0.1:8000/v1) a running server is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import openai


@contextlib.contextmanager
def own_server() -> Iterator[str]:
    """A server of our own on a free port."""
    import helix_kit as hk
    from helix_kit.runtime.api import start_server

    plan = hk.plan(hk.Cluster.preset("laptop"), hk.Model.preset("SmolLM2-135M"))
    with hk.serve(plan) as engine, start_server(engine) as server:
        yield server.url


def talk(base_url: str) -> None:
    """A completion, a chat, and a chat as a stream."""
    client = openai.OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    done = client.completions.create(model=model, prompt="The capital of France is", max_tokens=8, temperature=0)
    print("completion:", done.choices[0].text.strip(), f"({done.usage.completion_tokens} tokens)")
    question = [{"role": "user", "content": "Name one large city."}]
    chat = client.chat.completions.create(model=model, messages=question, max_tokens=24, temperature=0)
    print("chat:", chat.choices[0].message.content)
    print("stream: ", end="")
    stream = client.chat.completions.create(
        model=model,
        messages=question,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        else:
            print(f" ({chunk.usage.completion_tokens} tokens)")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        talk(sys.argv[1])
    else:
        with own_server() as url:
            talk(url)
