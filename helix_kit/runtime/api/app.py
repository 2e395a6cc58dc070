"""The application: its endpoints turn requests of OpenAI's API into requests to the engine, and answers back."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import helix_kit
from helix_kit.runtime.api import errors
from helix_kit.runtime.api.conversation import prompt_ids
from helix_kit.runtime.api.guard import Guard
from helix_kit.runtime.api.limits import Limits
from helix_kit.runtime.api.metrics import ApiMetrics
from helix_kit.runtime.api.schema import ChatRequest, CompletionRequest
from helix_kit.runtime.api.service import Service
from helix_kit.runtime.engine import Engine
from helix_kit.runtime.errors import EngineError

RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"description": text}
    for code, text in {
        400: "The request is not valid; the message says why",
        401: "No API key, or a wrong one",
        404: "No such model",
        413: "The body is too large",
        429: "The queue is full",
        500: "The scheduling policy raised an exception",
        503: "No pipeline is up, or the request took too long",
    }.items()
}


def create_app(
    engine: Engine, *, model_name: str | None = None, api_key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """The ASGI application for a running engine.

    Parameters
    ----------
    engine
        Answers the requests; the application does not close it.
    model_name
        What /v1/models lists; None: the name of the plan's model.
    api_key
        Requests other than /health need it as a bearer token. None: no key is needed.
    limits
        What one request may ask for; None: `Limits()`.

    Returns
    -------
    FastAPI
        For any ASGI server.

    Examples
    --------
    >>> uvicorn.run(create_app(engine, api_key="secret"))                    # doctest: +SKIP
    """
    limits = limits or Limits()
    name = model_name or engine.plan.model.name
    app = FastAPI(title="helix_kit", version=helix_kit.__version__, description="An engine of helix_kit.")
    metrics = ApiMetrics(engine, name)
    created = int(time.time())
    errors.install(app)
    app.add_middleware(Guard, metrics=metrics, api_key=api_key, max_body_bytes=limits.body_bytes)
    service = Service(engine, name, limits, metrics)

    @app.post("/v1/completions", responses=RESPONSES)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue one or several prompts."""
        service.check_model(body.model)
        return await service.answer(service.submit_all(body.prompts, body), body, request)

    @app.post("/v1/chat/completions", responses=RESPONSES)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """The assistant's next message."""
        service.check_model(body.model)
        return await service.answer(service.submit_all([prompt_ids(engine, body)], body), body, request)

    card = {"id": name, "object": "model", "created": created, "owned_by": "helix_kit"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that is served."""
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model}", responses={404: RESPONSES[404]})
    async def model(model: str) -> Response:
        """One model's card."""
        service.check_model(model)
        return JSONResponse(card)

    @app.get("/health", responses={503: RESPONSES[503]})
    def health() -> Response:
        """Whether requests can be served: state of the workers, and flow of the plan over those that are up."""
        try:
            status = engine.status()
        except EngineError as error:
            return errors.response(503, str(error), "closed")
        ok = status.flow_tokens_per_s > 0
        content = {
            "status": "ok" if ok else "no pipeline",
            "workers": {node: worker.state for node, worker in status.workers.items()},
            "flow_tokens_per_s": status.flow_tokens_per_s,
            "waiting": status.waiting,
            "running": status.running,
        }
        return JSONResponse(content, status_code=200 if ok else 503)

    @app.get("/metrics")
    def prometheus() -> Response:
        """Metrics in the text format of Prometheus."""
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
