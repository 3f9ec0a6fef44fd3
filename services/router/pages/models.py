"""The list of models: one."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from services.router.contracts import ServedModel
from services.router.json_http import json_response
from services.router.openai.common_fields import unknown_model


class ModelPages:
    """/v1/models and /v1/models/{id}; ids may hold slashes."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/models", self.list_models), web.get("/v1/models/{model_id:.+}", self.one_model)]

    async def list_models(self, request: web.Request) -> web.Response:
        return json_response({"object": "list", "data": [self._card()]})

    async def one_model(self, request: web.Request) -> web.Response:
        model_id = request.match_info["model_id"]
        if model_id != self._model.name:
            raise unknown_model(model_id)
        return json_response(self._card())

    def _card(self) -> dict[str, Any]:
        model = self._model
        return {
            "id": model.name,
            "object": "model",
            "created": model.created_s,
            "owned_by": "brigade",
            "root": model.root,
            "parent": None,
            "max_model_len": model.max_model_len_tokens,
        }
