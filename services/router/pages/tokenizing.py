"""/tokenize and /detokenize, in vLLM's form."""

from __future__ import annotations

from aiohttp import web

from brigade.core.errors import InvalidRequest
from services.router.answering.delivery import AnsweringParts
from services.router.json_http import json_response, read_json
from services.router.openai.chat_request import take_messages
from services.router.openai.common_fields import check_model, check_token_id
from services.router.openai.fields import Fields


class TokenizingPages:
    """Shows what the model reads for a text or a conversation, and what ids mean."""

    def __init__(self, parts: AnsweringParts) -> None:
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/tokenize", self.tokenize), web.post("/detokenize", self.detokenize)]

    async def tokenize(self, request: web.Request) -> web.Response:
        tokenizer, model, config = self._parts.tokenizer, self._parts.model, self._parts.config
        fields = Fields.of(await read_json(request, timeout_s=config.body_timeout_s))
        check_model(fields, model)
        text = fields.take_str("prompt", max_chars=config.max_body_bytes)
        is_chat = text is None
        add_special_tokens = fields.take_bool("add_special_tokens", not is_chat)
        if text is None:
            if tokenizer.chat_template is None:
                raise InvalidRequest(f"the model {model.name} has no chat template", field="messages")
            messages = take_messages(fields, config)
            add_generation_prompt = fields.take_bool("add_generation_prompt", True)
            text = tokenizer.chat_template.render(messages, add_generation_prompt=add_generation_prompt)
        fields.finish()
        ids = await tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return json_response({"count": len(ids), "max_model_len": model.max_model_len_tokens, "tokens": ids})

    async def detokenize(self, request: web.Request) -> web.Response:
        model, config = self._parts.model, self._parts.config
        fields = Fields.of(await read_json(request, timeout_s=config.body_timeout_s))
        check_model(fields, model)
        ids = fields.take_list("tokens", max_items=config.max_body_bytes)
        if ids is None:
            raise fields.error("tokens", "is required", code="missing_required_parameter")
        for token_id in ids:
            check_token_id(fields, "tokens", token_id, model.vocab_size)
        fields.finish()
        return json_response({"prompt": self._parts.tokenizer.decode(ids)})
