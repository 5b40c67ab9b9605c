"""Chats are written as transformers writes them, and the same in every process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from s3t_core.errors import UsageError
from s3t_core.learning.chat_template import template_of, write_chat
from tests.exactness.test_generation import CHATS

ROOT = Path(__file__).parents[3]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    {"role": "system", "content": " be kind "},
    {"role": "user", "content": "w1 <b>&amp;"},
    {"role": "assistant", "content": "w2\nw3"},
    {"role": "user", "content": ""},
]
AS_PEOPLE_WRITE = {
    **CHATS,
    "blocks and blanks": """
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
{%- endif %}
{% for m in messages %}
    {% if loop.first %}
{{ bos_token }}[{{ system | default('none') }}]
    {% endif %}
{{ loop.index0 }}/{{ loop.length }} {{ m['role'] | upper }}: {{ m.content.strip() | trim }}
{{- eos_token }}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}""",
    "values": "{{ messages }}{{ messages[0] }}{{ none }}{{ 1.5 }}{{ [1, 'a', {'k': true}] }}"
    "{{ messages[0].keys() | list }}{{ messages[0].items() | list }}{{ nothing }}{{ tools }}",
    "generators": "{% if messages | selectattr('role', 'equalto', 'nobody') %}always{% endif %}"
    "{% for c in messages | map(attribute='content') %}{{ c }};{% endfor %}"
    "{{ messages | map(attribute='role') | unique | join(',') }}{{ 'abc' | reverse }}"
    "{{ messages | reverse | map(attribute='role') | first }}{{ 'abcd' | batch(2) | list }}",
    "scopes": "{% set x = 'a' %}{% generation %}{% set x = 'b' %}{{ x }}{% endgeneration %}{{ x }}",
    "helpers": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b"
    "{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.current }}"
    "{{ dict(a=1) }}{{ range(3) | list }}{{ 5 - 3 }}{{ 7 // 2 }}{{ 'a' * 3 }}{{ 'a' ~ 1 ~ none }}",
    "methods": "{{ 'a,b'.split(',') }}{{ messages[0].get('role') }}{{ '%s-%s' % ('a', 1) }}"
    "{{ '{} {x}'.format('a', x=2) }}{{ 'w1'.startswith('w') }}{{ loop is defined }}"
    "{{ messages[1].content | e }}{{ messages[1] | tojson }}{{ messages | tojson(indent=2) }}",
    "macros": "{% macro say(m, loud=false) %}{{ caller() if caller }}{{ m.content | upper if loud "
    "else m.content }}{% endmacro %}{% for m in messages %}{{ say(m, loud=loop.last) }}"
    "{% call say(m) %}>{% endcall %}{% if loop.index == 2 %}{% continue %}{% endif %}{% endfor %}"
    "{{ say }}",
    "loops": "{% for m in messages recursive %}{{ loop.cycle('odd', 'even') }}{{ loop.previtem }}"
    "{{ loop.changed(m.role) }}{{ loop }}{% endfor %}",
}


def _transformers(template: str, messages: list[dict[str, str]], asks: bool) -> str:
    (told,), _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=asks, **TOKENS
    )
    return str(told)


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("name", AS_PEOPLE_WRITE)
def test_a_chat_is_written_as_transformers_writes_it(name: str, asks: bool) -> None:
    template, chat = AS_PEOPLE_WRITE[name], CHAT[1:] if name == "llama" else CHAT
    assert template_of(template) == template
    assert write_chat(template, chat, asks, TOKENS) == _transformers(template, chat, asks)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text()}
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_is_said_in_it(messages: list[dict[str, str]], asks: bool) -> None:
    for name in ("chatml", "blocks and blanks", "values", "methods", "macros"):
        template = AS_PEOPLE_WRITE[name]
        if name == "methods" and len(messages) < 2:
            continue
        told = write_chat(template, messages, asks, TOKENS)
        assert told == _transformers(template, messages, asks)


SHOWN = {
    "a method": "{{ m.content.strip }}",
    "a method by name": "{{ m['content']['strip'] }}",
    "a method by a filter": "{{ m.content | attr('upper') }}",
    "a method of a dict": "{{ m.items }}",
    "a method within a list": "{{ [m.content.strip] }}",
    "a method within a dict": "{{ {'a': m.content.strip} }}",
    "a method joined": "{{ [m.content.strip] | join }}",
    "a method beside a text": "{{ 'a' ~ m.content.strip }}",
    "a method formatted": "{{ '%s' % m.content.upper }}",
    "a method formatted by its own": "{{ '{}'.format(m.content.upper) }}",
    "a method formatted by a filter": "{{ '%s' | format(m.content.upper) }}",
    "a method as text": "{{ (m.content.upper | string)[-5:] }}",
    "a method's length": "{{ (m.content.upper | string) | length }}",
    "a method set": "{% set f = m.content.upper %}{{ f }}",
    "a method of a loop": "{% for x in [1] %}{{ loop.cycle }}{% endfor %}",
    "a method of a helper": "{% set c = cycler('a') %}{{ c.next }}",
    "a mapped method": "{{ [m] | map(attribute='items') | list }}",
    "a generator": "{{ [m] | map(attribute='content') }}",
    "a selection": "{{ [m] | select }}",
    "what is left": "{{ [m] | reject('string') }}",
    "by attribute": "{{ [m] | selectattr('role') }}",
    "by no attribute": "{{ [m] | rejectattr('role') }}",
    "what is unlike": "{{ ['a', 'b'] | unique }}",
    "batches": "{{ ['a', 'b'] | batch(1) }}",
    "slices": "{{ ['a', 'b'] | slice(1) }}",
    "items": "{{ m | items }}",
    "reversed": "{{ ['a', 'b'] | reverse }}",
    "a generator beside a text": "{{ 'a' ~ (['a'] | map('upper')) }}",
    "a generator within a list": "{{ [['a'] | map('upper')] }}",
    "a joiner": "{{ joiner() }}",
    "a cycler": "{{ cycler('a') }}",
    "a joiner beside a text": "{{ 'a' ~ joiner() }}",
    "a block": "{% block a %}{% endblock %}{{ self.a }}",
    "a block by its name": "{% block a %}{% endblock %}{{ self['a'] ~ 'b' }}",
    "a set": "{{ m.keys() - [] }}",
    "a set joined": "{{ (m.keys() - ['role']) | join }}",
    "a set of pairs": "{{ (m.items() - []) | list }}",
    "a set iterated over": "{% for k in m.keys() - [] %}{{ k }}{% endfor %}",
    "a set's first": "{{ (m.keys() - []) | first }}",
    "a set of a list": "{{ (['a', 'b'] - m.keys()) | join }}",
    "a set of a text": "{{ ('abc' - m.keys()) | list }}",
    "a set of pairs of a list": "{% for p in [('a', 'b')] - m.items() %}{{ p }}{% endfor %}",
    "a set of a dict": "{{ (m - {}.keys()) | first }}",
    "a set of a generator": "{{ (([m] | map('first')) - {}.keys()) | list }}",
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_has_an_address_or_an_order_of_the_process_is_not_shown(name: str) -> None:
    template = "{% set m = messages[1] %}" + SHOWN[name]
    with pytest.raises(UsageError, match=r"expected a chat template that writes .*, got one that"):
        write_chat(template_of(template), CHAT, False, TOKENS)


@pytest.mark.slow
def test_whatever_is_written_is_the_same_in_every_process() -> None:
    script = (
        "from tests.unit.learning.test_chat_template import *\n"
        "for name, template in AS_PEOPLE_WRITE.items():\n"
        "    print(repr(write_chat(template, CHAT[1:], True, TOKENS)))\n"
    )
    told: set[str] = set()
    for seed in ("0", "1", "random"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1 and len(told.pop().splitlines()) == len(AS_PEOPLE_WRITE)


@pytest.mark.parametrize(
    "template",
    ["{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ nobody.name }}", "{{ messages[0].content + 1 }}"],
)
def test_a_template_that_fails_is_told_in_words(template: str) -> None:
    with pytest.raises(UsageError, match="takes these roles, got "):
        write_chat(template_of(template), CHAT, False, TOKENS)


def test_only_what_is_known_is_there() -> None:
    """Also by a name that is computed while it is written."""
    found: Any = "{% set f = namespace(n='random') %}{{ ['a'] | map(f.n) | list }}"
    with pytest.raises(UsageError, match="computed"):
        template_of(found)
    with pytest.raises(UsageError, match="takes these roles"):
        write_chat(found, CHAT, False, TOKENS)
