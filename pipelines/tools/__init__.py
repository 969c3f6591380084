"""Labeling tools: pairs in each tool's own format, and its answers back."""
