"""Writes expressions.json: some 3,000 small templates and the text that Jinja2 makes of each.

The environment is transformers' own (5.24.0, Jinja2 3.1.6). Run: python make_expressions.py
A case is [template, text], or [template, null] where Jinja2 refuses it. All see the same variables.
"""
import datetime
import itertools
import json
import pathlib

from transformers.utils import chat_template_utils

NOW = 1754028305  # 2025-08-01 06:05:05 UTC, a Friday


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 8, 1, 6, 5, 5)


chat_template_utils.datetime = Clock

X = {
    "i": 3, "z": 0, "neg": -7, "f": 1.5, "nf": -0.25, "big": 1e22, "long": 12345678901234567890,
    "t": True, "no": False, "n": None, "s": "hello World", "e": "", "sp": "  a  b\tc \n", "num": "42",
    "u": "\u00e9\u00df\u2028\U0001f642", "html": "<a href='x'>&\"</a>", "ml": "one\n\n  two\nthree\r\nfour",
    "l": [3, 1, 2], "ls": ["b", "A", "c"], "le": [], "mix": [1, "a", None, True, 1.5, [2], {"k": 1}],
    "ll": [[1, 2], [3]], "d": {"b": "y", "a": 1, "C": None}, "de": {},
    "lo": [{"k": 1, "n": "x"}, {"k": 2, "n": "Y"}, {"k": 1, "n": "z"}], "q": "it's", "qq": 'a"b\'c\\d\n',
}

VALUES = ["x.i", "x.z", "x.neg", "x.f", "x.nf", "x.big", "x.t", "x.n", "x.s", "x.e", "x.sp", "x.num", "x.u",
          "x.html", "x.ml", "x.l", "x.ls", "x.le", "x.mix", "x.d", "x.lo", "nope", "(1, 'a')", "range(3)",
          "x.qq"]
FILTERS = ["abs", "capitalize", "count", "d('q')", "default('q', true)", "dictsort", "e", "escape", "first",
           "float", "int", "items | list", "join('-')", "last", "length", "list", "lower", "max", "min",
           "reverse | list", "round", "safe", "sort", "string", "striptags", "sum", "title", "tojson", "trim",
           "truncate(5)", "unique | list", "upper", "urlencode", "wordcount", "center(15)", "indent(2)",
           "replace('l', 'L')", "batch(2) | list", "slice(2) | list", "map('string') | list", "filesizeformat",
           "forceescape", "xmlattr", "select | list", "reject | list", "wordwrap(4)", "pprint", "urlize",
           "random | length"]
TESTS = ["boolean", "callable", "defined", "divisibleby(3)", "eq(3)", "escaped", "even", "false", "float",
         "ge(2)", "gt(2)", "in([1, 3, 'a'])", "integer", "iterable", "le(2)", "lower", "lt(2)", "mapping",
         "ne(3)", "none", "number", "odd", "sameas(none)", "sequence", "string", "true", "undefined", "upper",
         "equalto('a')", "filter", "test"]
OPERANDS = ["x.i", "-7", "x.f", "x.t", "'ab'", "x.l", "x.n", "nope", "x.d", "(1, 2)", "2", "'%s'"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or"]
METHODS = {
    "string": ["capitalize()", "casefold()", "center(15)", "center(16, '*')", "count('l')", "count('l', 4)",
               "endswith('ld')", "endswith(('x', 'd'))", "expandtabs(4)", "find('o')", "find('o', 5)", "find('zz')",
               "index('o')", "index('zz')", "isalnum()", "isalpha()", "isascii()", "isdecimal()", "isdigit()",
               "isidentifier()", "islower()", "isnumeric()", "isprintable()", "isspace()", "istitle()", "isupper()",
               "join(['a', 'b'])", "ljust(14)", "ljust(14, '.')", "rjust(14)", "rjust(14, '.')", "lower()",
               "lstrip()", "lstrip('he')", "rstrip()", "rstrip('ld')", "strip()", "strip('hd')", "partition('o')",
               "rpartition('o')", "removeprefix('he')", "removesuffix('ld')", "replace('l', 'L')",
               "replace('l', 'L', 2)", "replace('', '-')", "rfind('o')", "rindex('o')", "rsplit('o')",
               "rsplit('o', 1)", "rsplit(none, 1)", "split('o')", "split('o', 1)", "split()", "split(none, 1)",
               "split('l', maxsplit=1)", "split('')", "splitlines()", "splitlines(true)", "startswith('he')",
               "startswith('lo', 3)", "startswith(('x', 'h'))", "swapcase()", "title()", "upper()", "zfill(14)",
               "encode() | length", "format(1)", "nothing()"],
    "list": ["index(1)", "index('A')", "count(1)", "copy()", "append(1)", "pop()", "extend([1])", "sort()",
             "reverse()", "insert(0, 1)", "clear()", "remove(1)"],
    "dict": ["get('a')", "get('zz')", "get('zz', 5)", "items()", "keys()", "values()", "items() | list",
             "keys() | list", "values() | list", "copy()", "pop('a')", "update({})", "setdefault('a', 1)", "clear()"],
}
SLICES = ["[0]", "[-1]", "[1:]", "[:2]", "[:-1]", "[::2]", "[::-1]", "[-2:]", "[1:3]", "[10:]", "[5:1]", "[3:0:-1]",
          "[-1:0:-2]", "[99]", "[:]", "['a']", "[::0]", "[none:2]"]
FORMATS = [("%s", "'a'"), ("%d", "3"), ("%5d|", "3"), ("%-5d|", "3"), ("%05d", "-3"), ("%+d", "3"), ("% d", "3"),
           ("%x", "255"), ("%#x", "255"), ("%X", "255"), ("%o", "8"), ("%e", "1234.5"), ("%E", "0.00012"),
           ("%f", "1.5"), ("%.2f", "3.14159"), ("%8.3f|", "3.14159"), ("%g", "0.0001"), ("%g", "1e10"), ("%g", "100000"),
           ("%r", "'a'"), ("%r", "x.qq"), ("%s", "x.l"), ("%s", "x.d"), ("%s", "none"), ("%s", "true"), ("%s", "1.0"),
           ("%c", "65"), ("%c", "'z'"), ("%%", "()"), ("%10s|", "'ab'"), ("%-10s|", "'ab'"), ("%.2s", "'abcdef'"),
           ("%s-%s", "(1, 'b')"), ("%s", "(1,)"), ("%s %s", "(1,)"), ("%s", "(1, 2)"), ("%(a)s", "{'a': 1}"),
           ("%(a)05d", "{'a': 7}"), ("%d", "'a'"), ("%d", "3.9"), ("%i", "true"), ("%s", "nope"), ("%q", "1"),
           ("%*d", "(5, 3)"), ("%.3d", "5"), ("%a", "'\u00e9'"), ("%s", "(x.l, )"), ("%", "1")]
BRACES = ["{}", "{:5}|", "{:<5}|", "{:>5}|", "{:^5}|", "{:*^7}", "{:05d}", "{:+d}", "{: d}", "{:,}", "{:_}", "{:x}",
          "{:#x}", "{:b}", "{:o}", "{:e}", "{:f}", "{:.2f}", "{:8.3f}|", "{:g}", "{:%}", "{:.1%}", "{!r}", "{!s:>6}",
          "{0}{0}", "{1}", "{a}", "{{}}", "{:.2}", "{:c}", "{:n}", "{0[0]}", "{0.k}", "{", "}", "{:>{}}"]
ARGUMENTS = ["3", "-42", "1234567", "1.5", "'ab'", "true", "x.l", "none", "x.u"]
STRINGS = [r"'a\nb'", r"'\t|'", r"'\\'", r"'\''", r'"\""', r"'\x41'", r"'\u00e9'", r"'\U0001f642'", r"'\101'",
           r"'\0'", r"'\q'", r"'\a\b\f\v' | tojson", r"'a' 'b'", "'a' \"b\" 'c' | upper", "'\u00e9'", r"'\N{DASH}'",
           "'a\nb'", r"'\r\n' | tojson", "''", "'{{ x }}'", "'%}'", "'{# #}'", "'a\\\nb'"]
NUMBERS = ["1_000", "0x1F", "0o17", "0b101", "1e3", "1.5e-3", "1E5", ".5", "1.", "007", "12345678901234567890123", "1_0.5",
           "-0.0", "1e400", "+3", "- 3", "--3", "not not 3", "2 ** -1", "2 ** 0.5", "-2 ** 2", "2 ** 3 ** 2",
           "2 ** 100", "7 // -2", "-7 // 2", "-7 % 3", "7 % -3", "-7.5 % 2", "7.5 // 2", "1 / 3", "6 / 3", "5 - -3",
           "1 / 0", "1 // 0", "1 % 0", "0.1 + 0.2", "1e16 + 1", "3 - 1.0", "true + 1", "3 * true", "10 % 3.5",
           "1 if 0", "1 if 0 else 2 if 0 else 3", "1 < 2 < 3", "3 > 2 > 2", "1 == 1.0", "1 == true", "'a' < 'b'",
           "1 < 'a'", "none < 1", "[1, 2] < [1, 3]", "(1, 2) == [1, 2]", "1 in {1: 2}", "'a' in 'abc'", "1 in '1'",
           "not 1 in [1]", "1 not in [1]", "none is none and not 0", "1 or 2", "0 or ''", "1 and 2", "'' and 2",
           "1 ~ 2 ~ none", "'a' ~ 1.0 ~ true", "1 + 2 ~ 3", "'a' * 3", "3 * 'a'", "[1] * 2", "'a' * -1", "[] or 'q'",
           "(1, 2) + (3,)", "{'a': 1} == {'a': 1.0}", "1 is odd", "1 is not odd", "1 is eq 1", "not 1 is odd",
           "3 is divisibleby 3", "'a' is in ['a']", "1 is number and true", "1|string ~ 'a'", "-1|abs", "(-1)|abs",
           "1.5|int + 1", "x.l|length > 2", "x.l|sum / 2", "'a' if x.t else 'b' ~ 'c'", "x.l[x.z]", "x['s'][0]",
           "x.d.a", "x.d['b']", "x.d.zz", "x.d.zz.y", "x.nope", "nope.a", "nope['a']", "nope()", "x.s()", "x.i.a",
           "x.n.a", "x.s.zz", "x.l.0", "x.l.zz", "x.lo.0.k", "x.lo[1].n", "x.s.upper", "x.d.items", "x.d.keys is callable",
           "[1, 2,]", "{'a': 1,}", "()", "(1,)", "(1)", "1, 2", "{1: 'a', none: 'b', true: 'c'}", "{'a': {'b': [1]}}",
           "[[]]", "{}", "[{}]", "x", "x.mix", "x.d", "x.q", "[x.q]", "[x.qq]", "[x.u]", "[x.html]", "[x.ml]",
           "[1.0, 1e16, 1e-5, -0.0]", "['\\x00\\x7f\\xa0']", "x.big", "x.long", "x.long + 1", "true", "True", "none", "None",
           "false", "False", "nil", "loop", "self", "true is true", "'abc'[::-1]", "'abc'[1]", "dict(a=1)", "dict([('a', 1)])",
           "dict({'b': 2}, a=1)", "range(3)", "range(2, 5) | list", "range(5, 0, -2) | list", "range(0) | list",
           "range(3)[1]", "range(3) | length", "range(3) is iterable", "range(99999999)", "lipsum is defined",
           "cycler('a', 'b').next()", "joiner(',')()", "namespace(a=1).a", "namespace()", "raise_exception('a')",
           "strftime_now('%Y-%m-%d %H:%M:%S')", "strftime_now('%d %b %Y, %A %j %y %p %I')", "strftime_now('%-d %e %%')",
           "strftime_now('%c|%x|%X|%D|%F|%T|%R')", "strftime_now('%U %W %V %G %u %w %f %Z%z|')", "x.l.__class__", "x.s.__len__()",
           "''.__class__.__mro__", "x.l.append", "[].append(1)", "x.get('i')", "x.keys() | list | length", "x.f.is_integer()",
           "x.i.bit_length()", "x.s.format", "x.i is sameas x.i", "[] is sameas []", "x.l is x", "x | nope", "x is nope"]
FILTER_CALLS = """
x.neg | abs
x.s | attr('upper')
x.d | attr('a')
x.lo | batch(2) | list
x.lo | batch(2, 'f') | list
x.s | center
x.s | default
nope | default
nope | default('a') | upper
x.e | default('a')
x.e | default('a', boolean=true)
nope | d(default_value='w')
x.n | default('a')
x.d | dictsort
x.d | dictsort(true)
x.d | dictsort(false, 'key')
x.d | dictsort(by='key', reverse=true)
{'a': 3, 'b': 1} | dictsort(by='value')
{'b': 1, 'A': 2} | dictsort | list
{'b': 1, 'A': 2} | dictsort(case_sensitive=true)
1000 | filesizeformat
1024 | filesizeformat(true)
123456789 | filesizeformat
x.l | first
x.e | first
x.le | last
x.s | last
'3.9' | float
'a' | float
'a' | float(2.5)
'1e3' | float
' 4 ' | float
'%s and %s' | format('a', 1)
'%(a)s' | format(a=3)
'%5.1f|' | format(3.14159)
x.lo | groupby('k') | list | length
x.lo | groupby('k')
x.lo | groupby(attribute='n') | map(attribute='grouper') | list
x.lo | groupby('n', case_sensitive=true) | map('first') | list
x.ml | indent
x.ml | indent(2, true)
x.ml | indent(2, blank=true)
x.ml | indent(width='> ')
x.ml | indent(2, true, true)
'a' | int
'a' | int(5)
'12abc' | int
' 12 ' | int
'0x1F' | int(base=16)
'1F' | int(0, 16)
'101' | int(base=2)
'1_000' | int
'3.9' | int
'-3.9' | int
'1e3' | int
'+5' | int
'' | int
none | int
none | int(default=4)
true | int
[] | int
3.99 | int
-3.99 | int
1e20 | int
x.d | items | list
nope | items | list
x.l | items
x.l | join
x.l | join(', ')
x.l | join(d='+')
x.mix | join('|')
x.lo | join(', ', attribute='n')
x.lo | join(',', 'k')
x.s | join('-')
x.d | join('-')
'abc' | list
x.d | list
x.u | lower
x.lo | map(attribute='k') | list
x.lo | map(attribute='zz') | list
x.lo | map(attribute='zz', default='q') | list
x.lo | map('attr', 'k') | list
x.ls | map('upper') | list
x.ls | map('replace', 'b', 'B') | list
x.ls | map('default', 'a') | list
x.l | map('nope') | list
x.l | map | list
x.lo | map(attribute='n.0') | list
x.ll | map(attribute=0) | list
x.ll | map('first') | list
x.ll | map('join', '-') | join(',')
x.l | map('string')
x.l | max
x.ls | max
x.ls | max(case_sensitive=true)
x.lo | max(attribute='k')
x.lo | min(attribute='n')
x.le | max
x.l | min
x.ls | min
x.l | pprint
x.mix | reject('none') | list
x.l | reject('odd') | list
x.l | reject('gt', 1) | list
x.lo | rejectattr('k', 'eq', 1) | list
x.lo | rejectattr('k') | list
x.lo | rejectattr('zz', 'defined') | list
x.s | replace('l', 'L', 1)
x.s | replace('o', '')
x.s | replace(old='o', new='0')
12321 | replace('2', 'x')
x.s | reverse
x.l | reverse
x.l | reverse | list
2.5 | round
3.5 | round
-2.5 | round
2.675 | round(2)
1234.5 | round(-2)
42.55 | round(1, 'floor')
42.51 | round(1, 'ceil')
42.5 | round(method='ceil')
42 | round
42 | round(1)
1e20 | round
0.5 | round | int
x.html | safe
x.mix | select('string') | list
x.mix | select('number') | list
x.l | select('odd') | list
x.l | select('in', [1, 2]) | list
x.l | select('>', 1) | list
x.l | select('greaterthan', 1) | list
x.l | select('equalto', 1) | list
x.l | select('nope') | list
x.l | select('odd')
x.lo | selectattr('k', 'eq', 1) | list
x.lo | selectattr('k', '==', 1) | map(attribute='n') | join
x.lo | selectattr('n', 'in', ['x', 'z']) | list | length
x.lo | selectattr('n', 'lower') | list
x.lo | selectattr('zz') | list
x.lo | selectattr('n.0', 'eq', 'x') | list
x.lo | selectattr('k', 'eq', 1) | first
x.lo | selectattr('k', 'eq', 9) | first
x.lo | selectattr('k', 'eq', 9) | first is defined
x.l | slice(2) | list
x.l | slice(2, 'f') | list
[1,2,3,4,5,6,7] | slice(3) | list
x.l | sort
x.l | sort(true)
x.l | sort(reverse=true)
x.ls | sort
x.ls | sort(case_sensitive=true)
x.lo | sort(attribute='n')
x.lo | sort(attribute='k,n')
x.lo | sort(attribute='k', reverse=true) | map(attribute='n') | list
x.d | sort
x.mix | sort
'hello' | sort
x.lo | sum(attribute='k')
x.l | sum(start=10)
x.l | sum(none, 5)
x.le | sum
x.ls | sum
'a-b c_d' | title
"it's o'neil (foo) [bar]" | title
'HELLO wORLD' | title
x.d | tojson
x.mix | tojson(indent=2)
x.u | tojson
x.u | tojson(ensure_ascii=true)
x.d | tojson(indent=none, separators=(',', ':'))
x.d | tojson(sort_keys=true)
{1: 2, none: 3, true: 4} | tojson
(1, 2) | tojson
range(3) | tojson
nope | tojson
x.l | map('string') | tojson
x.d.items() | tojson
x.d.items() | list | tojson
x.i | tojson ~ x.f | tojson
1.0 | tojson
1e22 | tojson
'</script>' | tojson
x.sp | trim
x.s | trim('hd')
x.s | trim(chars='h')
'xxaxx' | trim('x')
3 | trim
'a long text with many words' | truncate(10)
'a long text with many words' | truncate(10, true)
'a long text with many words' | truncate(10, false, '..')
'a long text with many words' | truncate(10, leeway=0)
'a long text with many words' | truncate(24)
'a long text with many words' | truncate(length=12, killwords=true, end='>', leeway=2)
'short' | truncate(3)
'x' * 300 | truncate
x.lo | unique(attribute='k') | list
x.ls | unique | list
['a', 'A', 'b'] | unique | list
['a', 'A', 'b'] | unique(true) | list
[1, 1.0, true, 2] | unique | list
'a b&c=d/e' | urlencode
{'a': 1, 'b c': 'd&'} | urlencode
[('a', 1), ('b', 2)] | urlencode
x.u | urlencode
'foo http://example.org bar' | urlize
'one two  three' | wordcount
"it's" | wordcount
'a long text with many words' | wordwrap(10)
'averyverylongword b' | wordwrap(5)
'averyverylongword b' | wordwrap(5, false)
'a b c d' | wordwrap(3, wrapstring='|')
{'class': 'a', 'id': none, 'x': 1} | xmlattr
'<b>x</b>' | striptags
'<b>x</b>  <i>y</i><!-- c -->' | striptags
x.html | e
x.html | escape | safe
'<' | safe ~ '>'
('<b>' | safe) + '<'
'<' | e ~ '<'
[x.html | e]
'<' | forceescape
('<' | e) | e
x.i | string | length
x.t | string ~ x.n | string
none | string
1.0 | string
x.s | length
x.u | length
x.d | length
x.i | length
nope | length
nope | list
nope | join
none | list
none | join
x.u | upper
x.u | title
x.u | capitalize
'\u00dfa' | capitalize
3 | upper
none | upper
true | lower
x.s | upper | lower | title
x.l | first | string
x.s | upper()
x.l | sort | first
x.s | count
""".strip("\n").split("\n")
STATEMENTS = r"""
{% for i in x.l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}
{% for i in x.l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% endfor %}
{% for i in x.l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}
{% for i in x.l %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}
{% for i in x.l if i > 1 %}{{ i }}{{ loop.length }}{% else %}no{% endfor %}
{% for i in x.le %}{{ i }}{% else %}empty{% endfor %}
{% for i in nope %}{{ i }}{% else %}empty{% endfor %}
{% for i in x.n %}{{ i }}{% else %}empty{% endfor %}
{% for i in x.i %}{{ i }}{% endfor %}
{% for i in x.s %}{{ i }},{% endfor %}
{% for i in x.d %}{{ i }},{% endfor %}
{% for k, v in x.d.items() %}{{ k }}={{ v }},{% endfor %}
{% for k, v in x.d | dictsort %}{{ k }}={{ v }},{% endfor %}
{% for k, v in x.d | items %}{{ k }}={{ v }},{% endfor %}
{% for k in x.d.keys() %}{{ k }}{{ loop.last }},{% endfor %}
{% for (a, b) in [(1, 2), (3, 4)] %}{{ a }}{{ b }},{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for a, b in ['xy', 'zw'] %}{{ a }}-{{ b }};{% endfor %}
{% for a, b in x.ll %}{{ a }}{{ b }}{% endfor %}
{% for i in x.ll recursive %}{{ i if i is number else '[' ~ loop(i) ~ ']' }}{% endfor %}
{% for i in x.ll recursive %}{% if i is iterable %}<{{ loop(i) }}>{% else %}{{ i }}{{ loop.depth }}{% endif %}{% endfor %}
{% for i in range(6) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in range(3) %}{% for j in range(3) %}{% if j == i %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}
{% for i in x.l | sort %}{{ i }}{% endfor %}
{% for i in x.l + [9] %}{{ i }}{% endfor %}
{% for i in x.l if i is odd %}{{ loop.index }}:{{ i }} {% endfor %}
{% for i in x.l[::-1] %}{{ i }}{% endfor %}
{% for i in (1, 2) %}{{ i }}{% endfor %}
{% for i in 1, 2 %}{{ i }}{% endfor %}
{% for i in x.t and x.l %}{{ i }}{% endfor %}
{% for i in x.l if x.t else x.le %}{{ i }}{% endfor %}
{% set a = 1 %}{% for i in x.l %}{% set a = i %}{% endfor %}{{ a }}
{% for i in x.l %}{% set a = i %}{{ a }}{% endfor %}{{ a }}
{% for loop in x.l %}{{ loop }}{% endfor %}
{% for x in x.l %}{{ x }}{% endfor %}{{ x.i }}
{% for i in x.l %}{% if loop.first %}{% set a = 5 %}{% endif %}{{ a }}{% endfor %}
{% if x.t %}{% set a = 5 %}{% endif %}{{ a }}
{% if x.no %}{% set a = 5 %}{% endif %}{{ a }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set a, b = (1, 2) %}{{ a + b }}
{% set (a, b) = [1, 2] %}{{ a + b }}
{% set a, b = 'xy' %}{{ a }}{{ b }}
{% set a, b = [1] %}{{ a }}
{% set a = [1, 2] %}{% set b = a %}{{ b }}
{% set a = 1, 2 %}{{ a }}
{% set x.q = 1 %}
{% set a %}text {{ x.i }}{% endset %}{{ a }}|{{ a | length }}
{% set a | upper %}text {{ x.i }}{% endset %}{{ a }}
{% set a | replace('t', 'T') | trim %} text {% endset %}[{{ a }}]
{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}
{% set ns = namespace(a=1) %}{% set ns.b = 2 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set ns = namespace() %}{% for i in x.l %}{% set ns.t = i %}{% endfor %}{{ ns.t }}
{% set ns = namespace(l=[]) %}{% for i in x.l %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}
{% set ns = namespace(n=0) %}{% for i in x.l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}
{% set ns = namespace(n=0) %}{% set ns.n %}block{% endset %}{{ ns.n }}
{% set ns = namespace(a=1) %}{{ ns is mapping }}{{ ns is iterable }}{{ ns['a'] }}
{% macro m(a, b='q') %}<{{ a }}:{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(a=3) }}{{ m(b=1, a=2) }}{{ m() }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}
{% macro m() %}{{ varargs | length }}{% for v in varargs %}{{ v }}{% endfor %}{% endmacro %}{{ m() }}{{ m(7, 'a') }}
{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, b=2, c='x') }}
{% macro m() %}{% for k, v in kwargs.items() %}{{ k }}={{ v }} {% endfor %}{% endmacro %}{{ m(b=2, c='x') }}
{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}
{% macro m(a=x.i) %}{{ a }}{% endmacro %}{{ m() }}
{% macro m(a) %}{% if a > 0 %}{{ a }}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(3) }}
{% macro m() %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.caller }}{% endmacro %}{{ m() }}
{% macro m(a) %}{{ caller() }}{{ a }}{% endmacro %}{% call m(3) %}in{% endcall %}
{% macro m() %}{{ caller(1, 'a') }}{% endmacro %}{% call(p, q) m() %}{{ p }}{{ q }}{% endcall %}
{% macro m() %}{{ caller() if caller }}{{ caller is defined }}{% endmacro %}{{ m() }}
{% macro m() %}  text  {% endmacro %}[{{ m() | trim }}]{{ m() | length }}
{% macro m() %}a{% endmacro %}{% set r = m() %}{{ r }}{{ r ~ 'b' }}{{ r + '<' }}{{ r is string }}
{% macro m() %}{{ y }}{% endmacro %}{% set y = 1 %}{{ m() }}
{% macro m() %}{% set y = 5 %}{% endmacro %}{{ m() }}{{ y }}
{% macro m(x) %}{{ x }}{% endmacro %}{{ m('v') }}{{ x.i }}
{% macro a() %}A{% endmacro %}{% macro b() %}{{ a() }}B{% endmacro %}{{ b() }}
{{ m() }}{% macro m() %}late{% endmacro %}
{% macro m() %}{% for i in x.l %}{{ i }}{% endfor %}{% endmacro %}{{ m() }}{{ m }}
{% with a = 1 %}{{ a }}{% endwith %}{{ a }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}
{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}
{% with %}{% set a = 3 %}{{ a }}{% endwith %}{{ a }}
{% with a, b = 1, 2 %}{{ a }}{{ b }}{% endwith %}
{% with a, b = (1, 2), c = 3 %}{{ a }}{{ b }}{{ c }}{% endwith %}
{% with a %}{{ a }}{% endwith %}
{% filter upper %}abc{{ x.s }}{% endfilter %}
{% filter replace('a', 'b') | upper %}abc{% endfilter %}
{% raw %}{{ x }}{% if %}{# c #}{% endraw %}
{%- raw -%}  {{ x }}  {%- endraw -%}  a
{# comment #}a{#- c -#} b
{# {{ x }} {% if %} #}a
{% if x.t %}a{% elif x.i %}b{% else %}c{% endif %}
{% if not x.t %}a{% elif x.i > 2 %}b{% else %}c{% endif %}
{% if x.le %}a{% else %}c{% endif %}{% if x.e %}a{% endif %}{% if x.z %}b{% endif %}{% if nope %}d{% endif %}
{% if x.s is string and x.l is not string %}a{% endif %}
{% if x.l and x.l[0] == 3 %}a{% endif %}
{% if (x.i == 3) %}a{% endif %}
{% if x.i in x.l %}a{% endif %}{% if x.i not in x.l %}b{% endif %}
{% if 1 %}{% if 0 %}a{% else %}b{% endif %}{% endif %}
{% if %}{% endif %}
{% endif %}
{% unknown %}
{% include 'a' %}
{% include 'a' ignore missing %}
{% import 'a' as b %}
{% from 'a' import b %}
{% extends 'a' %}
{% block a %}in{% endblock %}
{% block a %}in{{ x.i }}{% endblock a %}{{ self.a() }}
{% do x.l.append(1) %}
{% autoescape true %}{{ x.html }}{% endautoescape %}
{% autoescape false %}{{ x.html }}{% endautoescape %}
{% trans %}a{% endtrans %}
{% debug %}
{% generation %}a{% endgeneration %}b
{%- generation -%} a {%- endgeneration -%} b
{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}
{% set q = 1 %}{% generation %}{% set q = 2 %}{% endgeneration %}{{ q }}
{{ 'a' -}}   b
a   {{- 'b' }}
a   {%- if x.t -%}   b   {%- endif -%}   c
{%- for i in x.l -%} {{ i }} {%- endfor -%}
{{x.i}}{{-x.i}}{{- x.i -}}{{+x.i}}
{%if x.t%}a{%endif%}
{%-if x.t-%} a {%-endif-%}
{% for i in x.l%}{{i}}{%endfor%}
{{ {'a': 1}['a'] }}{{ {'a': {'b': 2}}.a.b }}
{{ '}}' }}{{ "%}" }}{{ '{{' }}
{ { } } {{ '{' }} {% raw %}{%{% endraw %}
{{ (1, 2)[0] }}{{ [1, 2][1] }}{{ 'ab'[0] }}
{{ x.s.split(' ')[0].upper() }}
{{ x.lo[0].n ~ x.lo | length }}
{{ x.l | length + 1 }}{{ x.l | length * 2 }}{{ -x.l | length }}
{{ not x.l | length }}
{{ x.s | upper ~ 'a' | upper }}
{{ 'a' if x.t }}{{ 'b' if x.no }}{{ ('c' if x.no) is defined }}
{{ x.nope is defined and x.nope.y }}
{{ x.t is true and x.no is false and x.n is none }}
{{ x.s is string is true }}
{{ x.i is odd and x.i is not even or x.i is none }}
{{ x.i == 3 and 'yes' or 'no' }}
{{ x.d.get('a', 0) + x.d.get('zz', 5) }}
{{ x.l.index(1) if 1 in x.l else -1 }}
{{ caller is defined }}{{ loop is defined }}{{ varargs is defined }}{{ self is defined }}
{{ [1, 2, 3] | map('string') | map('upper') | join('-') }}
{{ x.lo | map(attribute='n') | map('lower') | unique | sort | join(' ') }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}
{% set j = joiner('|') %}{% for i in x.l %}{{ j() }}{{ i }}{% endfor %}
{% set a = x.l %}{% set a = a + [4] %}{{ a }}{{ x.l }}
{% set d = dict(x.d, z=1) %}{{ d }}
{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{{ d }}
{% set l = [] %}{% set _ = l.append(1) %}{{ l }}
{% set s = 'a' %}{% set s = s ~ 'b' %}{{ s }}{{ s * 2 }}
{{ x.s[:5] ~ '...' if x.s | length > 5 else x.s }}
{{ '%s' % x.s }}{{ '%s %d' % (x.s, x.i) }}{{ '%05.1f' % x.f }}
{{ 'a %s' % 'b' ~ 'c' }}{{ 7 % 4 * 2 }}{{ 'x%s' % 3 * 2 }}
{{ 3 * 'ab%s' % 1 }}
{{ ('%s' * 2) % (1, 2) }}
{{ {'a': '%s'}.a % 1 }}{{ x.s.replace('hello', '%s') % 'bye' }}
{{ x.s.split() | map('title') | join(' ') }}
{{ x.i.__class__ }}
{{ x.s['__class__'] }}
{{ x.d | attr('__class__') }}
{{ ''|attr('format') }}
{{ undefined_function('a') }}
{{ x.nope.nope }}
{{ x.nope[0] }}
{{ nope + 1 }}
{{ nope ~ 1 }}
{{ -nope }}
{{ nope == nope }}{{ nope == none }}{{ nope is none }}{{ not nope }}
{{ nope > 1 }}
{{ nope in [1] }}{{ 1 in nope }}
{{ [nope] }}
{{ {'a': nope} }}
{{ x.s in nope }}
{{ namespace(a=1) == namespace(a=1) }}
{{ 1 if }}
{{ 1 + }}
{{ (1 }}
{{ [1 }}
{{ x. }}
{{ 'a }}
{{ a b }}
{{ 1 2 }}
{{ x.l[] }}
{% for %}{% endfor %}
{% for i x.l %}{% endfor %}
{% set %}
{% set a %}
{% macro %}{% endmacro %}
{% endfor %}
{% if x.t %}
{{
{%
{#
""".strip("\n").split("\n")
# What takes several lines: mostly white space.
BLOCKS = [
    "{% filter indent(2) %}a\nb{% endfilter %}", "a  {% raw %}\nb {% endraw %}", "a {# multi\nline #}\nb",
    "{{ 'a' }}\n\n{{ 'b' }}\n\n{% set a = 1 %}\n\n{{ a }}\n {% set a = 1 %} b", "{% if x.t\n and x.i %}a{% endif %}",
    "{%- for i in x.l %}\n  {{- i }}\n{% endfor -%}\n\t{% if x.t %}\ttab{% endif %}\t", "{{ x.i }}{{\nx.i\n}}",
    "{{ x.i if\n x.t }}", "a\n  {%+ if x.t %} b{% endif +%}\n\nc\n  {{ 'a' }}\n  {# c #}\nb",
    "a\n    {% if true %}\n  line\n    {% endif %}\nend\n",
    "a\n  {% if x.t %}\n  b\n  {% endif %}\nc\n", "{% for i in x.l %}\n  {{ i }}\n{% endfor %}\n\n",
    "{% for i in x.l %}\n\n  {{ i }}\n\n{% endfor %}\n\nend\n\n", "x\n  {%- if true -%}\n  y\n  {%- endif %}\nz",
    "  {% set a = 1 %}  \n{{ a }}\n", "\t{% if true %}t{% endif %}\n", "a {%+ if true %} b{% endif %}",
    "  {%+ if true %} b{% endif %}", "{% if true +%}\nb{% endif %}", "{# a #}\n{# b #}\nc", "  {# a #}  \n  b",
    "{{ 'a' }}\n{{ 'b' }}\n", "{{ 'a' }}\n\n", "{%- macro m(a) -%}\n  {{ a }}\n{%- endmacro -%}\n{{ m(1) }}\n{{- m(2) }}",
    "{%- set a = 1 -%}\n\n\n{{ a }}", "{% raw %}\n  {{ x }}\n{% endraw %}\nb", "{% filter upper %}\n  a\n{% endfilter %}\nb",
    "{% call m() %}\n x\n{% endcall %}", "{% macro m() %}\n[{{ caller() }}]\n{% endmacro %}{% call m() %}\n x\n{% endcall %}",
    "{% with a = 1 %}\n {{ a }}\n{% endwith %}\nb", "{% set a %}\n  b\n{% endset %}\n[{{ a }}]", "\n\n{% if x.t %}\n\na\n\n{% endif %}\n\n",
    "{% if x.t -%}\n\n  a\n\n{%- endif %}\nb", "{%- if x.t %}\n\n  a\n\n{%- endif -%}\n b", "a\n\n  {%- if x.t %} b{% endif %}",
    "{{ 'a\\n' }}\n{% if x.t %}\nb\n{% endif %}", "a{% if x.t %}\n{% endif %}\nb", "  a{% if x.t %}  \n  b{% endif %}  \nc",
    "   {% if x.t %}a{% endif %} {% if x.t %}b{% endif %}", "{% if x.t %}a{% endif %}\n   {% if x.t %}b{% endif %}\n",
    "a\r\n{% if x.t %}\r\nb\r\n{% endif %}\r\nc\r\n", "{# c\n#}  {% if x.t %}a{% endif %}", "a\n   {#- c -#}   \nb", "\u00a0{% if x.t %}\u00a0a{% endif %}",
]


def templates():
    wrap = "{{{{ {} }}}}".format
    for value, name in itertools.product(VALUES, FILTERS):
        yield wrap(f"{value} | {name}")
    for value, name in itertools.product(VALUES, TESTS):
        yield wrap(f"{value} is {name}")
    for a, op, b in itertools.product(OPERANDS, OPERATORS, OPERANDS):
        # The whole square would be 2,304 cases; the diagonal bands have each pair of types several times.
        if (OPERANDS.index(a) + OPERANDS.index(b) + OPERATORS.index(op)) % 3 == 0:
            yield wrap(f"{a} {op} {b}")
    for text in ("x.s", "x.sp", "x.u", "x.e"):
        for method in METHODS["string"]:
            yield wrap(f"{text}.{method}")
    for kind, values in (("list", ["x.l", "x.ls"]), ("dict", ["x.d", "x.de"])):
        for value, method in itertools.product(values, METHODS[kind]):
            yield wrap(f"{value}.{method}")
    for value, part in itertools.product(("x.s", "x.l", "x.ls", "(1, 2, 3, 4)", "x.u", "x.d", "range(5)"), SLICES):
        yield wrap(f"{value}{part}")
    for pattern, argument in FORMATS:
        yield wrap(f"'{pattern}' % {argument}")
        yield wrap(f"'{pattern}' | format({argument})")
    for pattern, argument in itertools.product(BRACES, ARGUMENTS):
        yield wrap(f"'{pattern}'.format({argument}, a='q')" if argument == "3" else f"'{pattern}'.format({argument})")
    yield from map(wrap, STRINGS + NUMBERS + FILTER_CALLS)
    yield from STATEMENTS + BLOCKS


def main():
    cases = []
    for template in dict.fromkeys(templates()):
        try:
            compiled = chat_template_utils._cached_compile_jinja_template(template)
            text = compiled.render(messages=[], tools=None, documents=None, add_generation_prompt=False,
                                   bos_token="<s>", x=json.loads(json.dumps(X)))
            # Addresses and other things that differ from run to run.
            if " at 0x" in text or "<generator" in text or len(text) > 2000:
                continue
        except Exception:
            text = None
        cases.append([template, text])
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    x = json.dumps(X, ensure_ascii=False)
    path = pathlib.Path(__file__).with_name("expressions.json")
    path.write_text(f'{{"now": {NOW}, "x": {x},\n"cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases,", sum(text is None for _, text in cases), "refused,", path.stat().st_size, "bytes")


main()
