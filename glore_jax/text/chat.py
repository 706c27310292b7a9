"""Chat templates: what an instruction-tuned student reads around a question."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from glore_jax.errors import InputError

_QUESTION = "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}question\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}"


def around(template: str, tokens: dict[str, str], where: str) -> tuple[str, str]:
    """What a template writes before and after the user's words, where the assistant is to answer them.

    The template comes with the model and is run in a sandbox: it reads its variables and nothing else. It is told no
    date, so that a prompt is the same every day.

    Args:
      template: Jinja, as in `chat_template` of a `tokenizer_config.json`.
      tokens: `bos_token`, `eos_token` and so on, as text.
      where: for errors, whose template it is.

    >>> around("{{bos_token}}{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}<me>", {"bos_token": "^"}, "")
    ('^<user>', '<me>')

    Raises:
      InputError: the template fails, or does not write the user's words just once.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _refuse
    messages = [{"role": "user", "content": _QUESTION}]
    try:
        text = environment.from_string(template).render(messages=messages, add_generation_prompt=True, **tokens)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: the chat template fails on one question of a user ({error})") from error
    before, *after = text.split(_QUESTION)
    if len(after) != 1:
        raise InputError(f"{where}: the chat template writes the user's words {len(after)} times, expected once")
    return before, after[0]


def _refuse(message: Any) -> None:
    raise jinja2.TemplateError(str(message))
