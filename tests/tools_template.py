"""A chat template that tells of tools, as Qwen's does, and a tiny model with it that can be made to say things."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests import tiny
from trimem import LanguageModel

TEMPLATE = (
    "{% if tools %}<s>s:{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n{% endif %}"
    "<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools></s>{% endif %}"
    "{% for m in messages %}{% if not (tools and loop.first and m['role'] == 'system') %}"
    "<s>{{ m['role'][0] }}:{{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}"
    "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<s>a:{% endif %}"
)


def build() -> LanguageModel:
    """Return a tiny Llama with the template and a context of 4096 tokens."""
    more = ["|", "}", "~"]  # which the tiny tokenizer leaves out
    model = tiny.llama(max_position_embeddings=4096, vocab_size=tiny.VOCABULARY + len(more))
    lm = tiny.build("llama", model=model)
    lm.tokenizer.add_tokens(more)
    lm.tokenizer.chat_template = TEMPLATE
    return lm


def saying(lm: LanguageModel, *texts: str) -> dict[str, Any]:
    """Return options of ``generate`` that leave a model no choice but to say these texts, one each time it is asked.

    The last is said again and again.
    """
    coming = [[*lm.tokenize(text), lm.tokenizer.eos_token_id] for text in texts]
    wanted: list[int] = []
    start = length = 0

    def allowed(row: int, ids: Tensor) -> list[int]:
        nonlocal start, length, wanted
        if len(ids) != length + 1:
            start, wanted = len(ids), coming.pop(0) if coming else wanted
        length = len(ids)
        return [wanted[min(length - start, len(wanted) - 1)]]

    return {"prefix_allowed_tokens_fn": allowed, "eos_token_id": lm.tokenizer.eos_token_id}
