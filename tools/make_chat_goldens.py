#!/usr/bin/env python3
"""Makes tests/data/text/jinja_cases.jsonl and chat_cases.jsonl: templates, variables and what Jinja2 renders.

Jinja2 is set up as transformers sets it up for chat templates. Run with a Python that has jinja2:
    python tools/make_chat_goldens.py
The cases live in chat_golden_cases.py and chat_golden_families.py beside this script.
"""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

import chat_golden_cases
import chat_golden_families

NOW = datetime.datetime(2025, 3, 9, 7, 5, 2)
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "text"


class Generation(jinja2.ext.Extension):
    """`generation` blocks: transparent, and their places in the output recorded by marker characters."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        return "\ue000" + caller() + "\ue001"


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


def spans(marked):
    """Strips the markers; returns the text and the byte ranges they enclosed."""
    text, ranges, begin = "", [], 0
    for char in marked:
        if char == "\ue000":
            begin = len(text.encode())
        elif char == "\ue001":
            ranges.append([begin, len(text.encode())])
        else:
            text += char
    return text, ranges


def render(template, variables):
    row = {"template": template, "variables": variables}
    try:
        text, ranges = spans(environment().from_string(template).render(**variables))
    except Exception as error:  # the kind of error does not matter, only that there is one
        return {**row, "error": type(error).__name__}
    row["text"] = text
    if ranges:
        row["generation"] = ranges
    return row


def write(name, rows):
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / name, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{name}: {len(rows)} cases, {sum('error' in row for row in rows)} of them errors")


def main():
    write("jinja_cases.jsonl", [render(template, variables) for template, variables in chat_golden_cases.expression_cases()])
    rows = []
    for family, template in chat_golden_families.FAMILIES.items():
        for conversation in chat_golden_families.CONVERSATIONS:
            for prompt in (False, True):
                variables = {"tools": None, "documents": None, **conversation, "add_generation_prompt": prompt}
                rows.append({"family": family, **render(template, variables)})
    write("chat_cases.jsonl", rows)


if __name__ == "__main__":
    main()
