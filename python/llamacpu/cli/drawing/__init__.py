"""Answers on a terminal: Markdown is rendered while it is generated, with words wrapped at the edge.

Rendered text is final: no line is drawn again, so the text is the same in a resized window, in a scrolled one and over
a slow connection. Only the end of text that is still ambiguous is shown unrendered, on the rest of the row.
"""
