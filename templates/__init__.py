"""Data that ships with the scout: policies and samples."""
