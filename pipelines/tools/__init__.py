"""Labeling tools: review items in each tool's own format, and its answers back.

A tool is a folder: ``format.py``, and ``server.py`` where it has one. ``base`` is what all of them
promise, ``registry`` their list.
"""
