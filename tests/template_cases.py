"""Templates for the tests: hostile ones, and pieces that behave in ways of their own."""

# ruff: noqa: E501 (a template a line)

from datetime import datetime

DAY = datetime(2026, 11, 28)
"""The date that templates read in the reference outputs."""

# Each would take for ever, or make more than a machine holds, or look behind the values it is given.
HOSTILE = {
    "repeat": "{{ 'a' * 10**9 }}",
    "repeat list": "{{ [1] * 10**9 }}",
    "output": "{% set x = 'a' * 1000000 %}{% for i in range(100000) %}{{ x }}{% endfor %}",
    "literal output": "{% for i in range(99999) %}" + "x" * 5000 + "{% endfor %}",
    "doubling": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling by set block": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set x %}{{ n.s }}{{ n.s }}"
    "{% endset %}{% set n.s = x %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loop": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "lazy chain": "{% set n = namespace(g=range(99999)) %}{% for i in range(200) %}{% set n.g = n.g|map('int') %}"
    "{% endfor %}{{ n.g|list|length }}",
    "huge range": "{% for i in range(10**12) %}{% endfor %}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "negative power": "{{ 2 ** -1000000000 }}",
    "squares": "{% set n = namespace(x=99999) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "round down": "{{ 5|round(-1000000000) }}",
    "round up": "{{ 5.5|round(10**9, 'ceil') }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10**9, 1) }}",
    "percent precision": "{{ '%.1000000000f' % 1 }}",
    "format width": "{{ '{:1000000000}'.format('a') }}",
    "format nested width": "{{ '{:{}}'.format('a', 10**9) }}",
    "format filter": "{{ '%1000000000d'|format(1) }}",
    "format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "strftime": "{{ strftime_now('%1000000000Y') }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "center filter": "{{ 'a'|center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "indent": "{{ ('\\n' * 100000)|indent('x' * 100000) }}",
    "join": "{{ (['a' * 1000000] * 1000)|join }}",
    "join separator": "{{ ('b' * 1000000).join('a' * 1000000) }}",
    "replace filter": "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
    "replace method": "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
    "split": "{{ ('a' * 1900000).split('a')|length }}",
    "sum of lists": "{{ ([[1]] * 100000)|sum(start=[]) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro tree": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "shared lists": "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "shared lists compared": "{% set n = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    "shared tuples hashed": "{% set n = namespace(x=('a',)) %}{% for i in range(60) %}{% set n.x = (n.x, n.x) %}{% endfor %}"
    "{{ {n.x: 1} }}",
    "shared dicts": "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}"
    "{{ n.x|tojson }}",
    "deep list": "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "indented JSON": "{{ [1]|tojson(indent=1000000000) }}",
    "deep indented JSON": "{% set n = namespace(x=range(9000)|list) %}{% for i in range(500) %}{% set n.x = [n.x] %}"
    "{% endfor %}{{ n.x|tojson(indent=32) }}",
    "to_bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "slice copies": "{% set x = 'a' * 2000000 %}{% for i in range(99999) %}{% set y = x[1:] %}{% endfor %}",
    "comparisons": "{% set x = 'a' * 2000000 %}{% set y = x ~ '' %}{% for i in range(99999) %}{% if x == y %}{% endif %}"
    "{% endfor %}",
    "class": "{{ ''.__class__ }}",
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class by item": "{{ ''['__class__'] }}",
    "class by filter": "{{ ''|attr('__class__') }}",
    "class by map": "{{ ['']|map(attribute='__class__')|list }}",
    "class by format": "{{ '{0.__class__}'.format(1) }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "builtins": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "context": "{{ self._TemplateReference__context }}",
    "change list": "{{ messages.append(1) }}",
    "change dict": "{{ messages[0].update({'a': 1}) }}",
    "underscore in namespace": "{% set n = namespace(_x=1) %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'os' as os %}",
    "extends": "{% extends 'a' %}",
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long expression": "{{ " + "+".join(["1"] * 20000) + " }}",
    "many filters": "{{ 1" + "|int" * 10000 + " }}",
    "nested blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "nested loops in the source": "{% for a in [1] %}" * 50 + "{% endfor %}" * 50,
    "syntax": "{{ ",
    "unknown filter": "{{ 1|nosuch }}",
    "unknown function": "{{ nosuch() }}",
    "division": "{{ 1 / 0 }}",
    "source": "x" * 200_000,
}

# Pieces of template that behave in ways of their own.
SNIPPETS = {
    "trim blocks": "{% if true %}\n  a\n{% endif %}\n  {% if true %}b{% endif %}\n",
    "loop controls": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}"
    "{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% set x = 1 %}{% endgeneration %}{{ x }}{% endfor %}",
    "tojson": "{{ {'é': '<b>&\"', 'a': [1, 2.5, none, true]}|tojson }}",
    "tojson options": "{{ {'é': 1, 'a': [1]}|tojson(ensure_ascii=true, indent=2, separators=(',', ':'), sort_keys=true) }}",
    "strings are iterable": "{{ 'a' is iterable }}{{ 'a' is sequence }}{{ 'a' is mapping }}{{ {} is mapping }}",
    "undefined": "[{{ nothing }}{{ nothing is defined }}{{ messages[99] is defined }}{{ messages[0].nothing or 'x' }}]",
    "namespace": "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
    "filters": "{{ messages|map(attribute='role')|unique|list }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}"
    "{{ [3, 1, 2]|sort|join('-') }}{{ [1, 2, 3]|sum }}{{ 'a b'|title }}{{ 3.7|round|int }}{{ [[1, 2], [3]]|map('first')|list }}"
    "{{ {'b': 1, 'a': 2}|dictsort }}{{ 'abc'|reverse }}{{ 'x'|default('y') }}{{ ''|default('y', true) }}{{ [1, 2, 3]|batch(2)|list }}"
    "{{ 'a\nb'|indent(2) }}{{ 'abc'|first }}{{ [1]|last }}{{ 'x y z'|wordcount }}{{ '%s!'|format('a') }}{{ messages|groupby('role') }}",
    "methods": "{{ ' a '.strip() }}{{ 'a,b'.split(',') }}{{ 'abc'.startswith('a') }}{{ 'a'.upper() }}{{ {'a': 1}.items()|list }}"
    "{{ {'a': 1}.get('b', 2) }}{{ '{} {x}'.format(1, x=2) }}{{ 'aXb'.replace('X', '-') }}{{ 'a\nb'.splitlines() }}{{ [1, 2].index(2) }}",
    "slices": "{{ 'abcdef'[1:-1] }}{{ [1, 2, 3][::-1] }}{{ messages[1:] }}{{ 'abc'[-1] }}{{ (1, 2)[0] }}",
    "operators": "{{ 1 + 2 * 3 ** 2 // 4 % 3 - 1 / 2 }}{{ 'a' ~ 1 ~ none }}{{ 'a' * 3 }}{{ [1] + [2] }}{{ '%s-%d' % ('a', 2) }}"
    "{{ 1 < 2 <= 2 }}{{ 'a' in 'abc' }}{{ not true or false }}{{ 'x' if false else 'y' }}{{ -1 }}{{ 'x' if false }}",
    "loops": "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ loop.index0 }}{{ k }}{{ v }}{{ loop.last }}{{ loop.length }}"
    "{{ loop.previtem }}{{ loop.nextitem }}{% else %}none{% endfor %}{% for i in [] %}{% else %}empty{% endfor %}"
    "{% for i in [1, 2, 3, 4] if i is even %}{{ loop.index }}{{ i }}{% endfor %}{% for i in range(3) %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "recursive loop": "{% for m in [{'a': [{'a': []}]}] recursive %}<{{ loop.depth }}{{ loop(m.a) }}>{% endfor %}",
    "macros": "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}{{ f(1, 2, 3, c=4) }}"
    "{% call f('x') %}inner{% endcall %}",
    "capture": "{% set x %}a{{ messages[0].role }}{% endset %}{{ x }}{% set y | upper %}b{% endset %}{{ y }}{% filter upper %}c{% endfilter %}",
    "safe": "{{ ('<a>'|safe) ~ '<b>' }}{{ '<c>'|escape }}",
    "with": "{% with a = 1 %}{{ a }}{% endwith %}{% raw %}{{ x }}{% endraw %}{# comment #}",
    "numbers": "{{ 1e3 }}{{ 1_000 }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ 10|string }}{{ '5'|int + 1 }}{{ 1.0 }}{{ 3 is odd }}",
    "joiner": "{% set j = joiner(', ') %}{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}",
    "raise": "{{ raise_exception('The roles <must> alternate') }}",
    "dict": "{{ dict(a=1) }}{{ {'a': {'b': [1, {'c': none}]}} }}{{ messages[0] }}{{ messages }}",
    "documents": "{{ documents }}{{ tools }}{{ add_generation_prompt }}",
    "unknown": "{{ 1|unknown_filter }}",
    "attribute of undefined": "{{ messages[99].content }}",
    "concatenation with none": "{{ 'a' + none }}",
    "macro of a type": "{%- macro kind(s) -%}{{ {'string': 'str'}[s.type] if s.type is string else s.type|map('upper')|join('|') }}"
    "{%- endmacro -%}{% for t in tools or [] %}{% for n, p in t.function.parameters.properties|items %}{{ n }}:{{ kind(p) }} {% endfor %}{% endfor %}",
}
