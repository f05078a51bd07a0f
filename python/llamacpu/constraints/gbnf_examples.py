"""The GBNF grammars that llama-cpp-python offers as constants, rewritten for the same languages."""

_VALUES = r"""
value  ::= (object | array | string | number | ("true" | "false" | "null") blank)
object ::= "{" blank (member ("," blank member)*)? "}" blank
member ::= string ":" blank value
array  ::= "[" blank (value ("," blank value)*)? "]" blank
string ::= "\"" (PLAIN | "\\" escape)* "\"" blank
"""
_HEX = "[0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]"
_LONG = rf"""
escape ::= ["\\/bfnrt] | "u" {_HEX}
number ::= "-"? ([0-9] | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? blank
blank  ::= [ \t\n]*
"""
_PRINTED = r'[^"\\\x7F\x00-\x1F]'

ARITHMETIC_GBNF = r"""
root    ::= (sum "=" blank operand "\n")+
sum     ::= operand ([-+*/] operand)*
operand ::= (name | digits | "(" blank sum ")") blank
name    ::= [a-z] [a-z0-9_]*
digits  ::= [0-9]+
blank   ::= [ \t\n]*
"""
"""Lines of equations."""

C_GBNF = r"""
root      ::= function*
function  ::= type name "(" (type name)? ")" "{" statement* "}"
type      ::= ("int" | "float" | "char") blank
name      ::= [a-zA-Z_] [a-zA-Z_0-9]*
block     ::= "{" statement* "}"
statement ::= assigned ";" | name blank "(" arguments? ")" ";" | "return" blank sum ";" | loop | choice | comment
loop      ::= ("while" "(" compared | "for" "(" assigned ";" blank compared ";" blank step) ")" block
step      ::= name blank "=" blank sum
choice    ::= "if" "(" compared ")" block ("else" block)?
comment   ::= "//" [^\n]* "\n" | "/*" ([^*] | "*" [^/])* "*/"
assigned  ::= type? name blank "=" blank sum
compared  ::= sum ("<" | "<=" | "==" | "!=" | ">=" | ">") sum
sum       ::= product ([-+] product)*
product   ::= factor ([*/] factor)*
factor    ::= name | [0-9]+ | "-" factor | name "(" arguments? ")" | "(" blank sum blank ")"
arguments ::= sum ("," blank sum)*
blank     ::= [ \t\n]+
"""
"""Functions of a small part of C."""

JSON_GBNF = (
    "root ::= object\n" + _VALUES.replace("PLAIN", _PRINTED) + rf"""
escape ::= ["\\bfnrt] | "u" {_HEX}
number ::= "-"? ([0-9] | [1-9] [0-9]{{0,15}}) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{{0,15}})? blank
blank  ::= (" " | "\n" [ \t]{{0,20}})?
"""
)  # fmt: skip
"""A JSON object, with little white space."""

JSON_ARR_GBNF = (
    'root ::= "[\\n" blank (value (",\\n" blank value)*)? "]"\n' + _VALUES.replace("PLAIN", _PRINTED) + _LONG
)
"""A JSON array with one element per line."""

# In llama-cpp-python, too, these two describe a JSON object.
CHESS_GBNF = "root ::= object\n" + _VALUES.replace("PLAIN", r'[^"\\]') + _LONG
JAPANESE_GBNF = CHESS_GBNF

LIST_GBNF = r"""
root ::= ("- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n")+
"""
"""A list of lines that begin with a dash."""
