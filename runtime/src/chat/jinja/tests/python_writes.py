"""Writes python_writes.json: what Python's Jinja2 (3.1.6) puts out, set up as transformers does, for the sources below.

Run it in this folder: `python3 python_writes.py`. `null` stands for an error.
"""

import json

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {
    "n": 7,
    "word": "Hello World",
    "words": ["b", "a", "C"],
    "d": {"one": 1, "two": [1, 2.5, None, True], "k<>&'": '"é"\n'},
    "none_given": None,
    "people": [{"name": "Ann", "age": 30}, {"name": "bob", "age": 4}, {"name": "Cy"}],
}

EXPRESSIONS = r"""
1 + 2 * 3 - 4
7 / 2
8 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
- -3
+3
1 - -1
true + 1
1.0
1e16
1e15
123456789012345680.0
0.0001
0.00001
1.5e-7
3.0 * 2
0.1 + 0.2
1 == 1.0
1 == true
'1' == 1
1 < 2 < 3
1 < 2 > 3
3 > 2 >= 2 != 1
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
[1] == [1.0]
(1, 2) == [1, 2]
{'a': 1} == {'a': 1.0}
none == false
undefined_thing == none
not 1
not not 1
1 and 2
0 and 2
0 or ''
'' or 'x'
1 if true
1 if false
1 if false else 2
1 if false else 2 if false else 3
'a' ~ 1 ~ none ~ true ~ 1.5 ~ undefined_thing
'a' 'b'
'a' + 'b'
'a' + 1
1 + 'a'
[1] + [2]
(1,) + (2,)
[1] + (2,)
'ab' * 3
3 * 'ab'
'ab' * -1
[1, 2] * 2
word[0]
word[-1]
word[99]
word[1:3]
word[::-1]
word[:-3]
word[-3:]
word[5:1:-2]
word[::2]
words[0]
words[-1]
words[7]
words[::-1]
words[1:]
words[:-1]
words[0:2:2]
words.0
words.first
(1, 2, 3)[1:]
d.one
d['one']
d.two[1]
d['nothing']
d.nothing
d.nothing.more
d.items()
d.keys() | list
d.values() | list
d.get('one')
d.get('x')
d.get('x', 5)
d['items'] is defined
d.items is callable
d
words
(1,)
()
(1, 'a')
{}
[none, true, 1.0, 'it\'s', "\"", 'both \' and "', 'a\\b\n\t\r', 'é', '\x07', '\x7f']
{'a': {'b': []}, 1: 2, true: 3, none: 4}
'a' in 'abc'
'x' in 'abc'
'a' in words
'a' not in words
1 in [1.0]
'one' in d
1 in 'abc'
1 in 5
1 in none
1 in undefined_thing
undefined_thing
undefined_thing.x
undefined_thing['x']
undefined_thing | length
undefined_thing | list
undefined_thing + 1
undefined_thing()
none.x
none()
5.x
n is odd
n is even
n is divisibleby 7
n is divisibleby(3)
n is number
n is integer
n is float
1.5 is float
1.5 is integer
true is number
true is integer
true is boolean
1 is boolean
word is string
word is sequence
word is iterable
words is sequence
words is iterable
words is string
d is mapping
d is sequence
d is iterable
words is mapping
n is iterable
none is none
none_given is none
undefined_thing is none
undefined_thing is defined
undefined_thing is not defined
word is defined
word is undefined
true is true
1 is true
false is false
0 is false
'abc' is lower
'Abc' is lower
'ABC' is upper
'123' is upper
1 is eq 1
1 is equalto 2
1 is ne 2
1 is lt 2
1 is gt 2
1 is ge 1
1 is le 0
1 is sameas 1
1 is sameas true
none is sameas none
'a' is in ['a']
'a' is in('abc')
range is callable
word is callable
n is nonsense
word | upper
word | lower
word | capitalize
'hELLO wORLD' | capitalize
'hello-world (foo) [bar] x_y' | title
'it\'s' | title
'it\'s a' .title()
'  a b  ' | trim
'xxaxx' | trim('x')
word | length
d | length
5 | length
word | first
word | last
words | first
words | last
[] | first
d | first
d | list
'abc' | list
words | join
words | join(', ')
words | join(1)
[1, none, true, 1.5] | join('-')
people | join(', ', attribute='name')
words | sort
words | sort(reverse=true)
words | sort(case_sensitive=true)
[3, 1, 2] | sort
[1, 'a'] | sort
people | sort(attribute='name') | map(attribute='name') | list
people | map(attribute='name') | list
people | map(attribute='age') | list
people | map(attribute='age', default=0) | list
people | map('length') | list
words | map('upper') | list
words | map('replace', 'a', 'x') | list
words | select('equalto', 'a') | list
words | reject('in', ['a', 'b']) | list
[0, 1, '', 'a', none] | select | list
[0, 1, '', 'a', none] | reject | list
people | selectattr('age') | list
people | selectattr('age', 'defined') | map(attribute='name') | list
people | selectattr('name', 'equalto', 'bob') | list
people | rejectattr('name', 'in', ['bob', 'Cy']) | list
people | rejectattr('age', 'defined') | list
people | selectattr('nothing.more') | list
[1, 2, 2.0, '2', 1] | unique | list
['a', 'A', 'b'] | unique | list
['a', 'A', 'b'] | unique(case_sensitive=true) | list
[3, 1, 2] | min
[3, 1, 2] | max
[] | max
['b', 'A'] | min
people | max(attribute='name')
[1, 2, 3.5] | sum
[1, 2] | sum(start=10)
people | selectattr('age', 'defined') | sum(attribute='age')
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3, 4, 5] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
[1, 2, 3] | reverse | list
'abc' | reverse
d | items | list
d | dictsort
d | dictsort(reverse=true) | first
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(by='value')
undefined_thing | default('x')
none | default('x')
none | default('x', true)
'' | default('x', boolean=true)
0 | d('x')
'42' | int
'42.9' | int
'x' | int
'x' | int(default=5)
'0x1f' | int(base=16)
'ff' | int(base=16)
4.7 | int
-4.7 | int
true | int
none | int
'1.5' | float
'x' | float
'x' | float(default=2.5)
7 | float
-3 | abs
-3.5 | abs
42.55 | round
42.55 | round(1, 'floor')
42.51 | round(1, 'ceil')
2.5 | round
3.5 | round
2.675 | round(2)
42 | round
12345 | round(-2)
42 | string
[1, 'a'] | string
'<a href="x">\'&' | e
'<b>' | safe
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(2, first=true, blank=true)
'a\nb' | indent('> ')
'foo bar baz qux' | truncate(9)
'foo bar baz qux' | truncate(9, true)
'foo bar baz qux' | truncate(11)
'foo bar baz qux' | truncate(9, false, '..', 0)
'foo bar, baz_1' | wordcount
'ab' | center(7)
'ab' | center(6)
'abc' | center(8)
'%s and %d, %5.2f|%-5s|%05d|%x|%%' | format('a', 3, 2.5, 'x', 42, 255)
'%(a)s %(b)03d' | format(a='x', b=5)
'%s' % 'x'
'%s %s' % ('x', 1)
'%s %s' % ('x',)
'%s' % (1, 2)
'%(one)s' % d
'%r' % 'a\'b'
'%+d % d %c' % (5, 5, 'x')
'%.3f' % 2
'%.2s|' % 'abc'
'%X %#x %o' % (255, 255, 8)
'%i' % 3.7
d | tojson
d | tojson(indent=2)
d | tojson(indent=0)
words | tojson(separators=(',', ':'))
{'b': 1, 'a': [2]} | tojson(sort_keys=true)
'é\u2028🙂\x00"\\/' | tojson
'é🙂' | tojson(ensure_ascii=true)
[] | tojson(indent=2)
{} | tojson(indent=2)
[[], {}, [1]] | tojson(indent=4)
[1.0, 1e20, none, true] | tojson
undefined_thing | tojson
(1, 2) | tojson
{1: 2, none: 3, true: 4} | tojson
word | replace('l', 'L')
word | replace('l', 'L', 1)
word | replace('', '-')
'a' | attr('upper') is callable
d | attr('one') is defined
word.upper()
word.lower()
word.swapcase()
'ß'.upper()
'hello world'.capitalize()
"they're bill's".title()
' a '.strip()
'xyx'.strip('x')
' a '.lstrip() ~ '|'
' a '.rstrip() ~ '|'
'a b  c'.split()
'a b  c'.split(' ')
'a b  c'.split(none, 1)
' a b c '.split(none, 1)
' a b c '.rsplit(none, 1)
'a,b,c'.split(',', 1)
'a,b,c'.rsplit(',', 1)
''.split()
''.split(',')
'a'.split('')
'a\nb\r\nc'.splitlines()
'a\nb\n'.splitlines(true)
word.startswith('Hell')
word.startswith(('x', 'H'))
word.endswith('x')
word.find('o')
word.find('o', 5)
word.find('x')
word.rfind('o')
word.index('o')
word.index('x')
word.count('l')
word.count('l', 4)
'aaa'.count('')
word.replace('o', '0', 1)
'-'.join(words)
'-'.join([1])
'-'.join('abc')
'a-b-c'.partition('-')
'a-b-c'.rpartition('-')
'abc'.partition('-')
'abc'.rpartition('-')
'abc'.removeprefix('a')
'abc'.removesuffix('x')
'ab'.ljust(4) ~ '|'
'ab'.rjust(4, '*')
'ab'.center(5, '*')
'abc'.center(6, '*')
'-42'.zfill(6)
'42'.isdigit()
'4a'.isdigit()
''.isdigit()
'ab'.isalpha()
'a1'.isalnum()
' '.isspace()
'AB1'.isupper()
'ab1'.islower()
'{} and {}'.format('a', 1)
'{1}{0}{{}}'.format('a', 'b')
'{x}'.format(x=5)
words.index('a')
words.index('zz')
words.count('a')
words.append('x')
words.pop()
words.sort()
d.update({'x': 1})
d.pop('one')
d.clear()
d.setdefault('x', 1)
word.nonsense
word.nonsense()
range(5) | list
range(2, 5) | list
range(5, 1, -2) | list
range(0) | list
range(1, 2, 0)
dict(a=1, b=2)
dict({'a': 1}, b=2)
namespace(a=1).a
namespace({'a': 2}).a
namespace().x is defined
loop is defined
x.y.z is defined
word | nonsense
nonsense()
word()
'a' if words else 'b'
words[n - 6]
words | length > 2 and n == 7
words | length == 3 or undefined_thing.x
(words | first) ~ '!'
words|first~'!'
-words|length
n if n > 3 and n < 10 else 0
[1, 2, 3][1:][0]
{'a': [1, {'b': 2}]}.a[1].b
{'a': 1}['a']
"double \"quoted\" \u00e9 \x41 \n end"
'single \'quoted\' \101'
word in [word, 'x'] and not word == 'x'
1 is number and 'a' is string
n is not odd
not n is odd
none is not none
people[0].name | lower | length
people | length * 2
'%s' | format(1) | int + 1
[] or [1]
[[1, 2], [3]] | sum(start=[])
['a', 'b'] | map('upper') | join('-')
1_000 + 0x10 + 0b11 + 0o17
""".strip().split("\n")

TEMPLATES = [
    "plain text\n",
    "plain text\n\n",
    "{% if n %}\na\n{% endif %}\nb",
    "  {% if n %}\n  a\n  {% endif %}\n  b",
    "  {%+ if n %}a{% endif %}",
    "{% if n +%}\na{% endif %}",
    "a  {%- if n -%}  b  {%- endif -%}  c",
    "a {{- n -}} b",
    "a {#- comment -#} b {# another #}\nc",
    "  {# comment #}\nx",
    "{% raw %}{{ n }}{% endraw %}",
    "{%- raw -%}  {{ n }}  {%- endraw -%}  x",
    "{% for x in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for x in words %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in words %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "{% for x in words %}{% for y in [1, 2] %}{{ loop.depth }}{{ loop.depth0 }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}",
    "{% for x in words if x != 'a' %}{{ loop.index }}/{{ loop.length }}{{ x }}{% else %}none{% endfor %}",
    "{% for x in words if x == 'q' %}a{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in undefined_thing %}a{% endfor %}b",
    "{% for x in 'ab' %}{{ x }}.{% endfor %}",
    "{% for x in range(6) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for y in words %}{% set x = 2 %}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for y in [1, 2] %}{% if x is defined %}seen{% endif %}{% set x = y %}{{ x }}{% endfor %}",
    "{% set x = 0 %}{% for y in [1, 2, 3] %}{{ x }}{% set x = y %}{{ x }} {% endfor %}{{ x }}",
    "{% for x in [1, 2] %}{% for x in [3] %}{{ x }}{% endfor %}{{ x }}{% endfor %}",
    "{% set ns = namespace(x=0) %}{% for y in [1, 2, 3] %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{% set ns.a = [1] %}{{ ns.a }}{{ ns.b is defined }}",
    "{% set d.x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set a, b = [1] %}",
    "{% set x %}a{{ n }}b{% endset %}{{ x }}|{{ x|length }}",
    "{% set x | upper | replace('A', 'z') %}a{{ n }}b{% endset %}{{ x }}",
    "{% set x = 1 %}{% set y %}{% set x = 2 %}{{ x }}{% endset %}{{ x }}{{ y }}",
    "{% filter upper | replace('A', 'z') %}a{{ n }}b{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ b }}{% endwith %}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% macro m(a, b=2, c=b) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% set x = 9 %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}{{ x }}",
    "{% for x in [1] %}{% set y = 3 %}{% macro m() %}{{ n }}{% endmacro %}{{ m() }}{% endfor %}",
    "{% macro f(x) %}{{ x }}{% if x > 0 %}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{{ n }}{% endcall %}",
    "{% macro m() %}<{{ caller(1, b=2) }}>{% endmacro %}{% for x in [5] %}{% call(a, b) m() %}{{ x }}{{ a }}{{ b }}{% endcall %}{% endfor %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}",
    "{% macro m() %} a {% endmacro %}{{ m()|trim }}{{ m() | length }}",
    "{% set f = word.upper %}{{ f() }}",
    "{% set get = d.get %}{{ get('one') }}",
    "{% if words is string %}s{% elif words is mapping %}m{% elif words is iterable %}i{% else %}e{% endif %}",
    "{% if undefined_thing %}a{% else %}b{% endif %}",
    "{% if not words[5] %}a{% endif %}",
    "{{ raise_exception('no ' ~ word) }}",
    "{% do words.index('a') %}x",
    "{% block b %}in{% set z = 1 %}{% endblock %}{{ z is defined }}",
    "{% autoescape false %}{{ '<' }}{% endautoescape %}",
    "{{ '<' }}&{{ '\"' }}",
    "{% for message in people %}{{ message.name }}{{ message['age'] }}{{ ', ' if not loop.last else '.' }}{% endfor %}",
    "{% for p in people|selectattr('age', 'defined') %}{{ loop.index }}{{ p.name }}{% endfor %}",
    "{%- for x in words -%}\n  {{ x }}\n{%- endfor %}\nend\n",
    "{% set x = {'a': 1} %}{{ x.a }}{{ x['b'] is defined }}{{ x.b }}",
    "{% set l = [] %}{% for x in words %}{% set l = l + [x] %}{% endfor %}{{ l }}",
    "{% set x = words|first if words else 'none' %}{{ x }}",
    "{{ n }}\r\n{{ n }}\n",
    "{% if n == 7 and (word or none) %}yes{% endif %}",
    "{{ {'a': 'b'}['a'] }}{{ '}}' }}{{ '{{' }}",
    "{% for x in words %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ self is defined }}",
    "{%set x=1%}{{x}}{%-set y=2-%} {{y}}",
    "line1\n  {%- set x = 1 %}\nline2\n{{- x }}\nline3\n",
    "{{ words[0] ~ words[1] if words|length > 1 }}",
    "{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
]


def main():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, "jinja2.ext.do"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    cases = []
    for source in ["{{ " + expression + " }}" for expression in EXPRESSIONS] + TEMPLATES:
        try:
            cases.append([source, environment.from_string(source).render(**VARIABLES)])
        except Exception:
            cases.append([source, None])
    with open("python_writes.json", "w") as file:
        json.dump(cases, file, indent=0, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
