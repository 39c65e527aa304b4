"""Renders small templates with the Jinja environment of transformers (5.23.0, Jinja2 3.1.6).

Run: python make_jinja_cases.py; it writes jinja_cases.json beside itself.
"""
import json
import pathlib

from transformers.utils.chat_template_utils import _cached_compile_jinja_template as compiled

# One template a line.
LINES = r'''
{{ x.i }} {{ x.f }} {{ x.t }} {{ x.n }} {{ x.s }}
{{ x.l }} {{ x.d }}
{{ x.big }} {{ x.small }} {{ x.whole }}
{{ x.i / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 1.5 + 2 }}
{{ x.f | string }}|{{ x.t | string }}|{{ x.n | string }}|{{ x.d | string }}
{{ 'a' ~ x.t ~ x.n ~ x.f ~ x.l }}
{{ x.l | join(', ') }}
{{ x.d | tojson }} {{ x | tojson }}
{{ x | tojson(indent=2) }}
{{ x | tojson(indent=4, ensure_ascii=true) }}
{{ x.d | tojson(separators=(',', ':')) }}
{{ x.d | tojson(sort_keys=true) }}
{{ x.u | tojson }} {{ x.u | tojson(ensure_ascii=True) }} {{ x.html | tojson }}
{{ [] | tojson(indent=2) }} {{ {} | tojson(indent=2) }} {{ [[], {}] | tojson(indent=2) }}
{{ {'a': none, 'b': [1, 2.5, true]} | tojson }}
{{ x.s is string }} {{ x.s is sequence }} {{ x.s is iterable }} {{ x.s is mapping }}
{{ x.d is string }} {{ x.d is sequence }} {{ x.d is iterable }} {{ x.d is mapping }}
{{ x.l is sequence }} {{ x.i is sequence }} {{ x.t is number }} {{ x.t is integer }} {{ x.t is boolean }} {{ x.i is integer }} {{ x.f is float }}
{{ nope is defined }} {{ nope is none }} {{ x.n is none }} {{ x.nope is undefined }} {{ nope is sequence }} {{ nope is iterable }}
{{ nope }}|{{ x.nope }}|{{ nope or 'x' }}|{{ nope | default('d') }}|{{ '' | default('d', true) }}
{{ x.t is true }} {{ x.t is false }} {{ x.t == true }} {{ x.i is eq 3 }} {{ x.i is ne(3) }} {{ x.i in [1,3] }} {{ 'a' in x.d }} {{ 'el' in x.s }}
{{ x.s.upper() }} {{ x.s.split('l') }} {{ x.s.split('l')[-1] }} {{ x.s.strip('h') }} {{ x.s.replace('l','L') }} {{ x.s.startswith('he') }} {{ x.s.startswith(('x','he')) }} {{ x.s.endswith('lo') }} {{ x.s.title() }} {{ x.s.capitalize() }} {{ x.s.find('l') }} {{ x.s.index('l') }} {{ x.s.count('l') }}
{{ x.s.removeprefix('he') }} {{ x.s.removesuffix('lo') }} {{ x.s.partition('l') }} {{ x.s.rpartition('l') }} {{ x.s.rsplit('l', 1) }} {{ 'a b  c'.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a\nb'.splitlines() }} {{ x.s.isdigit() }} {{ '12'.isdigit() }} {{ ','.join(['a','b']) }}
{{ 'x{}y{}'.format(1, 'b') }} {{ '%s' | format('z') }}
{{ x.s[0] }} {{ x.s[-1] }} {{ x.s[1:3] }} {{ x.s[::-1] }} {{ x.l[1:] }} {{ x.l[::-1] }} {{ x.l[-1] }}
{{ x.d.items() | list }} {{ x.d.keys() | list }} {{ x.d.values() | list }} {{ x.d.get('a') }} {{ x.d.get('zz') }} {{ x.d.get('zz', 'def') }}
{% for k, v in x.d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in x.d | items %}{{ k }}={{ v }};{% endfor %}
{% for k in x.d %}{{ k }},{% endfor %}
{% for k, v in x.d | dictsort %}{{ k }}={{ v }};{% endfor %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in x.l if i > 1 %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }} {% else %}none{% endfor %}
{% for i in nope %}{{ i }}{% else %}empty{% endfor %}
{% set ns = namespace(a=1, b=[]) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ ns.b }}
{% set ns = namespace(a=false) %}{% for i in range(2) %}{% set ns.a = true %}{% endfor %}{{ ns.a }}
{% set z %}block {{ x.i }}{% endset %}{{ z }}{{ z | length }}
{% macro m(a, b='q') %}<{{ a }}:{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m('a') | trim | upper }}
{% macro m(a) %}{{ caller() }}{{ a }}{% endmacro %}{% call m(3) %}in{% endcall %}
{% filter upper %}abc{% endfilter %}
{{ x.l | length }} {{ x.l | first }} {{ x.l | last }} {{ x.l | sum }} {{ x.l | max }} {{ x.l | sort(reverse=true) }} {{ x.l | map('string') | list }} {{ x.l | reverse | list }}
{{ x.lo | selectattr('k', 'equalto', 1) | list }} {{ x.lo | map(attribute='k') | list }} {{ x.lo | rejectattr('k', 'eq', 1) | list | length }} {{ x.lo | selectattr('zz', 'defined') | list }}
{{ x.s | replace('l', 'L') }} {{ x.s | capitalize }} {{ '  a ' | trim }} {{ x.html | safe }} {{ x.html }}
{{ 'a' if x.t else 'b' }} {{ 'a' if nope }}|
{{ x.s | indent(2) }} {{ 'a\nb' | indent(4) }} {{ 'a\nb' | indent(4, true) }} {{ 'a\n\nb' | indent(2, first=true, blank=true) }}
{{ 3.7 | int }} {{ '3' | int }} {{ 3 | float }} {{ 3.14159 | round(2) }} {{ 2.5 | round }} {{ -3 | abs }} {{ 'abc' | list }} {{ 'abc' | first }}
{{ dict(a=1, b='x') }} {{ dict(a=1) | tojson }} {{ {'a': 1, **{}} if false else 'n' }}
{{ dict(a=1, b='x') }} {{ dict(a=1) | tojson }}
{{ (1, 2) }} {{ (1,) }} {{ () }} {{ [1, 'a', none, true] }} {{ {'a': "it's", 'b': 'q"'} }}
{{ x.u }} {{ x.u | length }} {{ x.u | upper }}
{{ not x.t }} {{ x.t and x.n }} {{ x.n or x.s }} {{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1,2] == [1,2] }} {{ x.l + [9] }} {{ 'a' * 3 }}
a  {%- if true %}  b  {% endif -%}  c
{# comment #}
{%- generation %}gen{% endgeneration %}
{{- 'x' }}  {{ 'y' -}}  z
{{ '\n' }}{{ "a\tb" }}{{ 'é\u00e9' }}{{ '\\' }}
{% raw %}{{ raw }}{% endraw %}
{% if x.i > 2 and x.s is not none and not nope %}yes{% elif x.f %}f{% else %}no{% endif %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% with q = 3 %}{{ q }}{% endwith %}
{{ x['i'] }} {{ x['d']['a'] }} {{ x.lo[0].k }} {{ x.lo[0]['k'] }}
{{ x.f | tojson }} {{ 1e100 | tojson }} {{ 1e16 }} {{ 0.1 + 0.2 }} {{ 1e-7 }}
{{ strftime_now('%Y') | length }}
{{ x.l | unique | list }} {{ x.l | batch(2) | list }} {{ x.l | select('odd') | list }} {{ 3 is odd }} {{ 3 is divisibleby 3 }}
{{ x.d | length }} {{ x.d | list }} {{ x.d.a }} {{ x.s | length }} {{ x.s | count }}
{{ 'a b c' | title }} {{ x.l | tojson | length }}
{{ bos_token }}{{ x.n is not none }}
{{ loop is defined }} {{ messages is defined }} {{ tools is none }} {{ documents is none }}
{{ x.i|string + 'a' }} {{ x.l | join }} {{ x.lo | join(',', attribute='k') }}
{{ '{:>5}|{:<5}|{:02d}'.format('a','b',3) }}
{{ x.i is sameas x.i }} {{ x.s is lower }} {{ 'A' is upper }} {{ x.s is in 'hello' }} {{ x.d is defined and x.d is mapping }}
{{ x.s == 'hello' and 'ok' }} {{ x.n == none }} {{ x.n is not defined }}
{{ ['a','b'] | map('upper') | join }} {{ x.lo | groupby('k') | length }} {{ 'abc' | reverse }}
{{ 'a,b' | replace(',', '') }} {{ 'aXb'.lower() }} {{ x.s.lstrip('h').rstrip('o') }}
{{ 'a' 'b' }} {{ 10 | string | length }} {{ x.emoji }} {{ x.emoji | tojson(ensure_ascii=true) }} {{ x.ctl | tojson }}
{{ '%05d' | format(42) }}
'''.strip('\n').split('\n')
# Templates of several lines: white space.
TEXTS = [
    'a\n    {% if true %}\n  line\n    {% endif %}\nend\n',
    '{# c #}\nafter\n\n',
    '{% for i in range(2) %}\n  {{ i }}\n{% endfor %}\n',
    'x\n  {%- if true -%}\n  y\n  {%- endif %}\nz',
    '  {% set a = 1 %}  \n{{ a }}\n',
    '{%- for m in [1] %}\n    {{- m }}\n    {#- c -#}\n  q {% endfor %}',
    '{% if true %}\n\n  a\n{% endif %}',
    '\t{% if true %}t{% endif %}\n',
    "{{ 'a' }}\n{{ 'b' }}\n",
    "  {{ 'keep' }}  \n {# lstrip me #}\nx",
    'a {%+ if true %} b{% endif %}',
    '{% if true +%}\nb{% endif %}',
]
x = {'i': 3,
 'f': 1.5,
 't': True,
 'n': None,
 's': 'hello',
 'l': [1, 2, 3],
 'd': {'b': 'y', 'a': 1},
 'big': 1e+22,
 'small': 1e-05,
 'whole': 2.0,
 'u': 'é\u2028ñ',
 'html': '<a href=\'x\'>&"</a>',
 'lo': [{'k': 1}, {'k': 2}],
 'emoji': '🙂',
 'ctl': 'a\x00\x1f\x7f\n"\\/'}

cases = []
for template in LINES + TEXTS:
    context = dict(messages=[], tools=None, documents=None, add_generation_prompt=False, bos_token="<s>", x=x)
    try:
        case = {"template": template, "output": compiled(template).render(**context)}
    except Exception as error:
        case = {"template": template, "error": f"{type(error).__name__}: {error}"}
    cases.append(case)
text = json.dumps({"x": x, "cases": cases}, ensure_ascii=False, indent=0)
pathlib.Path(__file__).with_name("jinja_cases.json").write_text(text + "\n")
