"""Figures in two steps: an info function that says what is shown, and a figure function that draws it with plotly.

Only SVG traces are used: plotly's WebGL ones generate code, which the pages' Content-Security-Policy forbids.
"""
