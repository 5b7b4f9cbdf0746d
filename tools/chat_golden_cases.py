"""Small cases of make_chat_goldens.py, one or more for each construct of the template language."""

DATA = {
    "name": "Ada",
    "n": 7,
    "pi": 3.14159,
    "flag": True,
    "nothing": None,
    "text": "  Hello, World!\n",
    "words": ["delta", "Alpha", "charlie", "bravo", "alpha"],
    "numbers": [3, 1, 2, 3, -4],
    "mixed": [1, 2.5, "x", None, True, ["y", 'it\'s'], {"k": "v", "q": 'say "hi"'}],
    "empty": [],
    "person": {"name": "Grace", "age": 85, "tags": ["navy", "cobol"], "address": {"city": "Arlington"}},
    "people": [
        {"name": "Bo", "age": 31, "role": "user", "pets": []},
        {"name": "cy", "age": 25, "role": "assistant", "pets": ["cat"]},
        {"name": "Al", "age": 31, "role": "user"},
    ],
    "unicode": "Grüße, Ünïcode Ñandú — 日本語 😀",
    "schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "A <b>\"city\"</b> & more"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}

OUTPUT = r"""
{{ name }} {{ n }} {{ pi }} {{ flag }} {{ nothing }} {{ missing }}|
{{ mixed }}
{{ person }} {{ empty }} {{ {} }} {{ () }} {{ (1,) }} {{ 1, 'two' }}
{{ 1.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ -0.0 }} {{ 1e22 }} {{ 2.5e-7 }} {{ 100000.0 }}
{{ ['tab\t', 'nl\n', 'back\\slash', "it's", 'both \' and "', 'é', '\u200b', '\x07'] }}
{{ 'a' 'b' "c" }} {{ "q\"q" }} {{ 'x\x41\u00e9\101' }} {{ 'keep \d' }}
"""

ARITHMETIC = r"""
{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 6 / 3 }} {{ 2 ** 0.5 }}
{{ 1 + 2 * 3 ** 2 }} {{ (1 + 2) * 3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }} {{ 10 - 4 - 3 }} {{ +n }} {{ -n }} {{ - -n }}
{{ 'a' ~ 1 ~ none ~ 2.0 }} {{ 1 ~ 2 + 3 ~ 4 if false else 1 ~ 2 }} {{ 'ab' * 3 }} {{ [1, 2] + [3] }} {{ [0] * 3 }} {{ 2 * 'xy' }}
{{ true + true }} {{ true * 3 }} {{ 'x' + 'y' }} {{ 5 // 2.0 }} {{ 7.0 }} {{ 1_000 }} {{ 0 }} {{ 3 * 1.5 }}
"""

LOGIC = r"""
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == false }}
{{ [1, 2] == [1, 2] }} {{ [1, 2] < [1, 3] }} {{ {'a': 1} == {'a': 1} }} {{ (1, 2) == [1, 2] }}
{{ 'ell' in 'hello' }} {{ 2 in [1, 2] }} {{ 'k' in {'k': 0} }} {{ 'k' not in {'k': 0} }} {{ not 2 in [1] }} {{ 'x' in missing }}
{{ 0 or 'b' }} {{ 'a' and 'b' }} {{ '' and 'b' }} {{ none or [] }} {{ not '' }} {{ not none and 1 }}
{{ 'yes' if n > 5 else 'no' }} {{ 'only' if n > 50 }}| {{ 'a' if false else 'b' if false else 'c' }}
{{ missing == missing2 }} {{ missing == none }} {{ 1 if missing else 2 }} {{ true and not false or false }}
{{ 1 != 2 }} {{ 2 >= 2 }} {{ 3 <= 2 }} {{ n is defined and n > 3 }} {{ (n > 3) is true }}
"""

TESTS = r"""
{{ n is defined }} {{ missing is defined }} {{ missing is undefined }} {{ person.nope is defined }} {{ person.name is not defined }}
{{ nothing is none }} {{ n is none }} {{ name is string }} {{ n is string }} {{ person is mapping }} {{ words is mapping }}
{{ words is iterable }} {{ name is iterable }} {{ n is iterable }} {{ person is iterable }} {{ words is sequence }} {{ person is sequence }} {{ n is sequence }}
{{ n is number }} {{ pi is number }} {{ name is number }} {{ n is integer }} {{ true is integer }} {{ pi is integer }} {{ pi is float }} {{ n is float }}
{{ flag is boolean }} {{ 1 is boolean }} {{ flag is true }} {{ 1 is true }} {{ flag is false }} {{ false is false }}
{{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is divisibleby(2) }} {{ n is equalto 7 }} {{ n is eq(8) }} {{ n is ne 8 }}
{{ n is gt 3 }} {{ n is lt 3 }} {{ n is ge 7 }} {{ n is le 6 }} {{ 3 is in [1, 3] }} {{ 3 is not in [1, 3] }} {{ 'ab' is lower }} {{ 'Ab' is upper }} {{ 'AB1' is upper }}
{{ range is callable }} {{ name is callable }} {{ none is sameas none }} {{ 'x' is sameas 'y' }} {{ not name is string }} {{ name is not string and true }}
{{ missing is string }} {{ missing is iterable }} {{ missing is none }} {{ 'upper' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }}
{{ person.items is defined }} {{ person['age'] is number }} {{ words | map('upper') is iterable }}
"""

SLICES = r"""
{{ words[0] }} {{ words[-1] }} {{ words[9] }}| {{ words[1:3] }} {{ words[:2] }} {{ words[-2:] }} {{ words[::-1] }} {{ words[::2] }} {{ words[3:0:-1] }} {{ words[:] }}
{{ name[0] }} {{ name[::-1] }} {{ name[1:] }} {{ name[5:] }}| {{ unicode[0:5] }} {{ unicode[-1] }} {{ unicode[-3:-1] }} {{ numbers[-100:100] }} {{ numbers[10:] }}
{{ person['name'] }} {{ person.name }} {{ person['nope'] }}| {{ person.address.city }} {{ person['tags'][1] }} {{ person.tags.0 }} {{ people[0].name }} {{ words[n - 6] }}
{{ (1, 2, 3)[1:] }} {{ 'abc'[true] }} {{ words[none:2] }} {{ person[missing] }}|
"""

FILTERS = [
    "{{ text | trim }}|{{ text | trim | upper }}|{{ '--x--' | trim('-') }}",
    "{{ 'hello wORLD-foo (bar) [baz]' | title }} {{ 'hELLO wORLD' | capitalize }} {{ 'ABC' | lower }} {{ 'straße' | upper }} {{ unicode | upper }} {{ unicode | lower }}",
    "{{ 'banana' | replace('a', 'o') }} {{ 'banana' | replace('a', 'o', 2) }} {{ 'abc' | replace('', '-') }} {{ 123 | replace('2', 'x') }}",
    "{{ words | join }} {{ words | join(', ') }} {{ numbers | join('+') }} {{ people | join('/', attribute='name') }} {{ 'abc' | join('.') }} {{ mixed | join(' ') }}",
    "{{ words | length }} {{ name | length }} {{ person | length }} {{ unicode | length }} {{ missing | length }} {{ empty | count }}",
    "{{ missing | default('d') }} {{ '' | default('d') }}| {{ '' | default('d', true) }} {{ none | d('x') }} {{ none | default('x', boolean=true) }} {{ missing | default }}| {{ n | default(1) }}",
    "{{ words | first }} {{ words | last }} {{ empty | first }}| {{ name | first }} {{ name | last }} {{ person | first }}",
    "{{ 'abc' | list }} {{ person | list }} {{ (1, 2) | list }} {{ 5 | string }} {{ 5 | string | length }} {{ none | string }}",
    "{{ '42' | int }} {{ '42.9' | int }} {{ 'x' | int }} {{ 'x' | int(-1) }} {{ 3.99 | int }} {{ -3.99 | int }} {{ '0x1F' | int(base=16) }} {{ true | int }} {{ ' 7 ' | int }} {{ none | int(5) }} {{ '-12' | int }}",
    "{{ '2.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ 'x' | float(1.5) }} {{ '1e3' | float }} {{ ' 4 ' | float }} {{ 'inf' | float }}",
    "{% for k, v in person | items %}{{ k }}={{ v }};{% endfor %} {{ person | items | list }} {{ missing | items | list }}",
    "{{ {'b': 1, 'A': 3, 'c': 2} | dictsort }} {{ {'b': 1, 'A': 3, 'c': 2} | dictsort(true) }} {{ {'b': 1, 'A': 3} | dictsort(by='value', reverse=true) }}",
    "{{ words | map('upper') | list }} {{ people | map(attribute='name') | list }} {{ people | map(attribute='pets', default='none') | list }} {{ people | map(attribute='nope') | list }} {{ words | map('replace', 'a', 'o') | join(',') }}",
    "{{ numbers | select('odd') | list }} {{ numbers | reject('odd') | list }} {{ numbers | select('gt', 2) | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ [0, 1, ''] | reject | list }} {{ numbers | select('>', 2) | list }}",
    "{{ people | selectattr('role', 'equalto', 'user') | map(attribute='name') | join(' ') }} {{ people | rejectattr('role', 'eq', 'user') | list | length }} {{ people | selectattr('pets') | list }} {{ people | selectattr('pets', 'defined') | list | length }} {{ people | selectattr('role', 'in', ['assistant', 'tool']) | list }} {{ people | rejectattr('pets') | list | length }}",
    "{{ words | unique | list }} {{ numbers | unique | list }} {{ words | unique(true) | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }}",
    "{{ words | sort }} {{ words | sort(reverse=true) }} {{ words | sort(case_sensitive=true) }} {{ numbers | sort }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ people | sort(attribute='age', reverse=true) | map(attribute='name') | list }}",
    "{{ numbers | reverse | list }} {{ name | reverse }} {{ unicode | reverse }} {% for w in words | reverse %}{{ w }} {% endfor %}",
    "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb\n\nc' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\nb' | indent('> ') }}|{{ 'a\nb\n' | indent(1, first=True) }}",
    "{{ -3 | abs }} {{ -2.5 | abs }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 42.55 | round(1) }} {{ 42.55 | round(1, 'floor') }} {{ 42.51 | round(1, 'ceil') }} {{ 42 | round }} {{ pi | round(2) }} {{ 1234 | round(-2) }} {{ 2.675 | round(2) }} {{ 7 | round(0, 'floor') }}",
    "{{ numbers | sum }} {{ [1.5, 2] | sum }} {{ people | sum(attribute='age') }} {{ [] | sum }} {{ [1, 2] | sum(start=10) }} {{ numbers | min }} {{ numbers | max }} {{ words | min }} {{ words | max }} {{ empty | max }}| {{ people | max(attribute='age') | attr('x') }}|",
    "{{ 'x' | safe }} {{ '<&\">' | e }} {{ \"it's\" | escape }} {{ 'one two  three' | wordcount }}",
    "{{ schema | tojson }}\n{{ schema | tojson(indent=2) }}\n{{ mixed | tojson }} {{ unicode | tojson }} {{ unicode | tojson(ensure_ascii=true) }} {{ 'a\"b\\\\c\n\t\x01/' | tojson }}",
    "{{ [] | tojson }} {{ {} | tojson(indent=4) }} {{ [[], {}] | tojson(indent=1) }} {{ [1, [2, {'a': none}]] | tojson(indent=4) }} {{ {'b': 1, 'a': [true, 1.0, 1e100]} | tojson(sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4, 'x': 5.5} | tojson }} {{ (1, 2) | tojson }} {{ [1] | tojson(indent='--') }}",
    "{{ name | upper | lower | title | replace('A', 'E') }} {{ (n + 1) | string ~ '!' }} {{ -1 | abs }} {{ 2 + 3 | string | length }} {{ [3, 1] | sort | first }}",
]

METHODS = [
    "{{ text.strip() }}|{{ text.lstrip() }}|{{ text.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xyaz'.lstrip('yx') }}|{{ 'a\\n\\n'.rstrip('\\n') }}|{{ '<|a|>'.strip('<|>') }}",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.split(maxsplit=1) }} {{ 'abc'.split('x') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a-b-c'.rsplit('-', 1) }} {{ '</think>ab'.split('</think>')[-1] }}",
    "{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ 'hello'.startswith('he') }} {{ 'hello'.startswith(('x', 'he')) }} {{ 'hello'.endswith('lo') }} {{ 'hello'.endswith('x') }}",
    "{{ 'heLLo wORLD'.title() }} {{ \"they're bill's\".title() }} {{ 'hello'.upper() }} {{ 'HeLLo'.lower() }} {{ 'hELLO'.capitalize() }} {{ 'élan'.upper() }}",
    "{{ 'banana'.replace('an', 'AN') }} {{ 'banana'.replace('a', '', 1) }} {{ 'banana'.find('n') }} {{ 'banana'.find('z') }} {{ 'banana'.rfind('n') }} {{ 'banana'.count('a') }} {{ '日本'.find('本') }} {{ 'banana'.index('nan') }}",
    "{{ ', '.join(words) }} {{ ''.join(['a', 'b']) }} {{ '-'.join('abc') }} {{ 'abc'.isdigit() }} {{ '123'.isdigit() }} {{ 'abc'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }}",
    "{{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }} {{ 'k=v=w'.partition('=') }} {{ 'kv'.partition('=') }}",
    "{{ person.get('name') }} {{ person.get('nope') }} {{ person.get('nope', 'dflt') }} {{ person.keys() | list }} {{ person.values() | list | length }} {% for k, v in person.items() %}{{ k }}:{{ v }} {% endfor %} {{ {}.items() | list }}",
    "{{ words.index('charlie') }} {{ numbers.count(3) }} {{ person.tags.index('cobol') }} {{ (1, 2, 1).count(1) }} {{ person['get']('age') }}",
    "{% if {}.items() %}yes{% else %}no{% endif %} {% if empty | map('upper') %}lazy{% endif %} {{ name.upper().lower().title() }} {{ person.tags[0].upper()[0] }}",
]

LOOPS = [
    "{% for w in words %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.length }}{{ ' first' if loop.first }}{{ ' last' if loop.last }} {{ w }}\n{% endfor %}",
    "{% for x in empty %}x{% else %}none{% endfor %} {% for x in missing %}x{% else %}undefined{% endfor %} {% for c in 'aé😀' %}[{{ c }}]{% endfor %}",
    "{% for p in people if p.role == 'user' %}{{ loop.index }}{{ p.name }}{{ loop.length }} {% endfor %}{% for p in people if p.age > 99 %}x{% else %}nobody{% endfor %}",
    "{% for k, v in person.items() %}{{ k }} {% endfor %}{% for a, (b, c) in [(1, (2, 3)), [4, [5, 6]]] %}{{ a + b + c }} {% endfor %}",
    "{% for x in [1, 2, 3, 4, 5] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in numbers %}{{ loop.previtem if loop.previtem is defined else '^' }}<{{ x }}>{{ loop.nextitem | default('$') }} {% endfor %}",
    "{% for r in [1, 2] %}{% for c in 'ab' %}{{ r }}{{ c }}{{ loop.depth }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %} {{ range(2, 8, 3) | list }} {{ range(3, 0, -1) | list }} {{ range(0) | list }} {{ range(5)[::-1] | list }}",
    "{% for x in words %}{{ loop.cycle('odd', 'even') }} {% endfor %}{% for x in [1, 1, 2] %}{{ loop.changed(x) }} {% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(found=false, total=0) %}{% for x in numbers %}{% set ns.total = ns.total + x %}{% if x == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.total }} {{ ns.nope }}|",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% set ns.c = [1] %}{{ ns.c }} {% for m in people[::-1] %}{{ m.name }}{% endfor %}{% for m in people[1:] %}{{ m.name }}{{ loop.index0 }}{% endfor %}",
    "{% for i in range(3) %}{% for j in range(3) %}{% if j > i %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for x in [3, 4] recursive_not %}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
]

STATEMENTS = [
    "{% if n > 5 %}big{% elif n > 2 %}mid{% else %}small{% endif %} {% if not flag %}a{% elif nothing %}b{% else %}c{% endif %} {% if 0 %}x{% endif %}|",
    "{% set a = 1 %}{% set b, c = 2, [3, 4] %}{{ a }}{{ b }}{{ c }} {% set d = {'k': a, 'l': {'m': b}} %}{{ d.l.m }} {% set a = a + 1 %}{{ a }}",
    "{% set block %}  inner {{ name }}\n{% endset %}[{{ block }}] {% set up | upper | replace('A', '4') %}x{{ name }}y{% endset %}{{ up }} {{ block is string }}",
    "{% macro hi(who, greeting='Hello', mark='!') %}{{ greeting }} {{ who }}{{ mark }}{% endmacro %}{{ hi('Bo') }} {{ hi('Cy', mark='?') }} {{ hi(greeting='Yo', who='Di') }} {{ hi() }}",
    "{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k * (fact(k - 1) | int) }}{% endif %}{% endmacro %}{{ fact(10) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }} {{ m(1, 2, 3, x=4) }}",
    "{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('b') %}in {{ name }}{% endcall %} {% macro each(l) %}{% for i in l %}{{ caller(i) }};{% endfor %}{% endmacro %}{% call(v) each([1, 2]) %}{{ v * 2 }}{% endcall %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}| {% filter upper %}shout {{ name }}{% endfilter %} {% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% raw %}{{ not }} {% if %} {# c #}{% endraw %} {%- raw -%}  x  {%- endraw %}|",
    "{% set s = 'outer' %}{% if true %}{% set s = 'inner' %}{% endif %}{{ s }} {% macro f() %}{{ s }}{% set s = 'macro' %}{{ s }}{% endmacro %}{{ f() }} {{ s }}",
    "{% macro outer() %}{% macro inner(x) %}({{ x }}){% endmacro %}{{ inner(1) }}{{ inner(2) }}{% endmacro %}{{ outer() }}",
    "{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([('p', 1)]) }} {% set j = joiner(', ') %}{% for x in words %}{{ j() }}{{ x }}{% endfor %}",
    "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y, %H:%M:%S') }} {{ strftime_now('%B %A %j') }}",
    "a{% generation %}b{{ name }}{% endgeneration %}c{% for x in [1, 2] %}<{% generation %}é{{ x }}{% endgeneration %}>{% endfor %}",
    "{{ raise_exception('No system role') }}",
    "{{ undefined_function() }}",
    "{{ missing.attribute }}",
    "{{ person.nope.deeper }}",
    "{{ missing['x'] }}",
    "{{ 1 + 'a' }}",
    "{{ missing + 'a' }}",
    "{{ 'a' + none }}",
    "{{ 1 / 0 }}",
    "{{ 1 < 'a' }}",
    "{{ x | nope }}",
    "{{ x is nope }}",
    "{{ name.nope() }}",
    "{% if %}{% endif %}",
    "{% if true %}",
    "{% endif %}",
    "{{ 'open }}",
    "{{ (1, 2 }}",
    "{% nope %}",
    "{{ }}",
    "{# never closed",
    "{% set 1 = 2 %}",
    "{% set person.x = 2 %}",
    "{{ missing | tojson }}",
    "{{ [1, 2][::0] }}",
    "{{ range(1000000) }}",
    "{{ namespace(_a=1) if false else 'fine' }}",
    "{% break %}",
    "{{ a b }}",
    "{{ 1 if }}",
    "{% for x in %}{% endfor %}",
    "{{ words.nope }}|{{ none.x }}|{{ n.x }}|{{ name.x }}|",
]

WHITESPACE = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n    {% if true %}  \n    b\n    {% endif %}\nc",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "  {%+ if true %}x{% endif +%}\ny",
    "a\n  {{ 1 }}\n  {{- 2 -}}\n  {{ 3 }}\n",
    "a\n  {# comment #}\nb {# c #} d\n{#- x -#}\n e",
    "{% set x = 1 -%}\n\n  x{{ x }}\n\n",
    "one\r\ntwo\rthree\n{% if true %}\r\nfour{% endif %}\r\n",
    "\n\n{% if true %}\n\nx\n\n{% endif %}\n\n\n",
    "x {% if true %} {% endif %} y\n {% if true %}z{% endif %}",
    "\t{% for i in [1, 2] %}\t\n\t\t{{ i }}\n\t{% endfor %}\t\n",
    "{{ 'a' }}\n{{ 'b' }}\n",
    "{%- for m in people %}\n    {%- if loop.first %}\n        {{- '<s>' }}\n    {%- endif %}\n    {{- m.name + '\\n' }}\n{%- endfor %}\n",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'x': '}}'}['x'] }}{{ '%}' }}{% set y = '%}' %}{{ y }}",
    "{{-1}} {{ - 1 }} {{ 1 -}} 2",
    "<{{ '' }}{% if true %}\n{% endif %}>",
]


def expression_cases():
    for template in [OUTPUT, ARITHMETIC, LOGIC, TESTS, SLICES, *FILTERS, *METHODS, *LOOPS, *STATEMENTS, *WHITESPACE]:
        yield template, DATA
