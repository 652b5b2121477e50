"""Writes models.json: what transformers' set-up of Python's Jinja2 (3.1.6) makes of conversations, with the templates
of real models in templates/.

Run it in this folder: `python3 models.py`. `null` stands for an error.
"""

import datetime
import json
import pathlib

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The \"current\" weather <b> & more",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city's name"},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["city"],
        },
    },
}
NOTHING = {
    "type": "function",
    "function": {"name": "nothing", "description": "é", "parameters": {"type": "object", "properties": {}}},
}
CALL = {
    "id": "call12345",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "f": 1.5, "n": None, "ok": True}},
}
TEXT_CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\"}"},
}
CONVERSATIONS = {
    "one": [{"role": "user", "content": " Hi <there>  "}],
    "system": [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "Hi"}],
    "turns": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB"},
        {"role": "user", "content": "C"},
        {"role": "assistant", "content": "D", "reasoning_content": "because"},
        {"role": "user", "content": "E"},
    ],
    "tool": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "{\"t\": 3}", "name": "get_weather", "tool_call_id": "call12345"},
        {"role": "assistant", "content": "3 degrees"},
        {"role": "user", "content": "Thanks"},
    ],
    "tools": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, TEXT_CALL]},
        {"role": "tool", "content": "3", "name": "get_weather", "tool_call_id": "call12345"},
        {"role": "tool", "content": "4", "name": "get_weather", "tool_call_id": "abcdefghi"},
    ],
    "twice": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}
VARIABLES = {
    "qwen3": [{}, {"enable_thinking": True}, {"enable_thinking": False}],
    "llama-3.1": [
        {},
        {"tools_in_user_message": False, "date_string": "1 Jan 2026"},
        {"builtin_tools": ["brave_search", "code_interpreter", "get_weather"]},
    ],
}


def main():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    tools = [WEATHER, NOTHING]
    cases = []
    for path in sorted(pathlib.Path("templates").glob("*.jinja")):
        template = environment.from_string(path.read_text())
        for name, messages in CONVERSATIONS.items():
            for with_tools in [False, True]:
                for variables in VARIABLES.get(path.stem, [{}]):
                    given = {
                        "messages": messages,
                        "tools": tools if with_tools else None,
                        "documents": None,
                        "add_generation_prompt": True,
                        "bos_token": "<|begin_of_text|>",
                        "eos_token": "<|end_of_text|>",
                        **variables,
                    }
                    try:
                        text = template.render(**given)
                    except Exception:
                        text = None
                    cases.append([path.stem, name, with_tools, variables, text])
    with open("models.json", "w") as file:
        json.dump({"tools": tools, "conversations": CONVERSATIONS, "cases": cases}, file, indent=0, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
