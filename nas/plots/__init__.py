"""Figures in two steps: an info function collects the data, and a figure function draws them with plotly.

Only SVG traces are used: plotly's WebGL traces generate code, which the Content-Security-Policy of the pages forbids.
"""
