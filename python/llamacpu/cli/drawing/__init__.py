"""Answers on a terminal: Markdown is drawn while it is written, with words wrapped at the edge.

What has been written stays as it is: no line is drawn again, so that a resized window, a scrolled one and a slow
connection show the same text. Only the end of what cannot be decided yet is shown as it came, on the rest of the row.
"""
