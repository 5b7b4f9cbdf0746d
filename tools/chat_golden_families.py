"""Templates in the manner of the model families, and conversations, for make_chat_goldens.py."""

# Own templates that use the constructs of the model families, in their manner but not their words.
FAMILIES = {
    "turns": """{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + (m['content'] or '') + '<|end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}""",
    "brackets": """{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set system = false %}{% endif %}{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Turns of user and assistant must alternate') }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '[[SYS]]\\n' + system + '\\n[[/SYS]]\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[ASK] ' + content.strip() + ' [/ASK]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "headers": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|h|>system<|/h|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools available:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|h|>' + message['role'] + '<|/h|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("One call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|h|>assistant<|/h|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot|>" }}
    {%- elif message.role == "tool" %}
        {{- "<|h|>ipython<|/h|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|h|>assistant<|/h|>\\n\\n' }}
{%- endif %}
""",
    "thinking": """{%- if tools %}
    {{- '<|start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Functions\\n\\n<fns>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</fns><|end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|start|>system\\n' + messages[0].content + '<|end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not (message.content.startswith('<reply>') and message.content.endswith('</reply>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|start|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning is string %}
            {%- set reasoning = message.reasoning %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|start|>user' }}
        {%- endif %}
        {{- '\\n<reply>\\n' }}
        {{- content }}
        {{- '\\n</reply>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "model-turn": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '</turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<turn>model\\n' }}
{%- endif -%}""",
    "macros": """{%- macro render_type(spec) -%}
    {%- if spec.type == 'array' -%}
        List[{{ render_type(spec['items']) if spec['items'] is defined else 'Any' }}]
    {%- elif spec.type is iterable and spec.type is not string -%}
        Union[{{ spec.type | join(', ') }}]
    {%- elif 'enum' in spec -%}
        {{ spec.enum | map('tojson') | join(' | ') }}
    {%- else -%}
        {{ {'string': 'str', 'integer': 'int', 'number': 'float', 'boolean': 'bool'}.get(spec.type, 'Any') }}
    {%- endif -%}
{%- endmacro -%}
{%- macro signature(tool) -%}
    def {{ tool.name }}({% for name, spec in tool.parameters.properties.items() %}{{ name }}: {{ render_type(spec) }}{% if name not in tool.parameters.required | default([]) %} = None{% endif %}{% if not loop.last %}, {% endif %}{% endfor %}):
    \"\"\"{{ tool.description | default('No description') | capitalize }}
{% for name, spec in tool.parameters.properties | dictsort %}
    {{ name }}: {{ spec.description | d('?') | trim | indent(4) }}
{% endfor %}    \"\"\"
{%- endmacro -%}
{{ bos_token }}
{%- set loop_messages = messages | rejectattr('role', 'equalto', 'system') | list -%}
{%- set system = messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | join('\\n') -%}
{%- if system or tools -%}
<sys>{{ system or 'Default preamble.' }}
{% for tool in (tools or []) %}
```python
{{ signature(tool.function) }}
```
{% endfor %}
</sys>
{%- endif -%}
{%- for group in loop_messages -%}
    {%- if loop.previtem is defined and loop.previtem.role == group.role %}{{ '\\n' }}{% else %}<{{ group.role | upper }}>{% endif -%}
    {%- if group.content is string %}{{ group.content }}{% elif group.content %}{% for part in group.content if part.type == 'text' %}{{ part.text }}{{ ' ' if not loop.last }}{% endfor %}{% endif -%}
    {%- for call in group.tool_calls | default([], true) %}[{{ call.function.name }}({% for k, v in call.function.arguments.items() %}{{ k }}={{ v | tojson }}{{ ', ' if not loop.last }}{% endfor %})]{% endfor -%}
    {%- if loop.nextitem is not defined or loop.nextitem.role != group.role %}{{ eos_token }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<ASSISTANT>{% endif -%}""",
    "masked": """{% for message in messages %}
{% if message.role == 'assistant' %}
<|assistant|>
{% generation %}{{ message.content or '' }}{{ eos_token }}{% endgeneration %}

{% else %}
<|{{ message.role }}|>
{{ message.content }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% endif %}""",
    "grounded": """{% if documents %}{% set sources %}{% for d in documents %}Document {{ loop.index0 }}
{% for key, value in d.items() %}{{ key }}: {{ value }}
{% endfor %}{% if not loop.last %}

{% endif %}{% endfor %}{% endset %}<results>{{ sources }}</results>{% endif %}
{% for m in messages %}{% if m['role'] | lower == 'user' %}{{ '<|USER|>' ~ m['content'] }}{% elif m['role'] in ['assistant', 'chatbot'] %}{{ '<|BOT|>' ~ m['content'] ~ '<|END|>' }}{% elif m.role is in ['system', 'developer'] %}{{ '<|SYS|>' ~ m.content }}{% else %}{{ '<|' ~ m.role | upper ~ '|>' ~ m.content | tojson }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|BOT|>' }}{% endif %}""",
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "look up the weather; \"today\" <only>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city\nin English"},
                "unit": {"enum": ["C", "F"], "description": "degrees"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "extra": {"type": ["string", "null"]},
            },
            "required": ["city"],
        },
    },
}

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

CONVERSATIONS = [
    {**SPECIAL, "messages": [{"role": "user", "content": "What is the capital of France?"}]},
    {
        **SPECIAL,
        "messages": [
            {"role": "system", "content": "  You answer in one word.  "},
            {"role": "user", "content": "Largest planet?\n"},
            {"role": "assistant", "content": " Jupiter "},
            {"role": "user", "content": "日本語で「こんにちは」😀"},
        ],
    },
    {
        **SPECIAL,
        "tools": [WEATHER],
        "enable_thinking": False,
        "messages": [
            {"role": "system", "content": "Use tools."},
            {"role": "user", "content": "Weather in Köln?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": [1, 2]}}}
                ],
            },
            {"role": "tool", "name": "get_weather", "content": "{\"temp\": 21.5}"},
            {"role": "tool", "name": "get_weather", "content": "sunny"},
            {"role": "assistant", "content": "<think>\nwarm\n</think>\n\nIt is 21.5 degrees and sunny."},
        ],
    },
    {
        **SPECIAL,
        "documents": [{"title": "Tides", "text": "The moon."}, {"title": "Sun", "text": "A star."}],
        "date_string": "26 Jul 2024",
        "messages": [
            {"role": "user", "content": "Why tides?"},
            {"role": "assistant", "content": "<think>easy</think>Because of the moon."},
            {"role": "user", "content": "And the sun?"},
            {"role": "assistant", "content": "It adds to them.", "reasoning": "\nboth pull\n"},
        ],
    },
    {
        **SPECIAL,
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}, {"type": "text", "text": "Tell me."}]},
        ],
    },
    {**SPECIAL, "messages": [{"role": "assistant", "content": None}, {"role": "assistant", "content": "two in a row"}]},
]
