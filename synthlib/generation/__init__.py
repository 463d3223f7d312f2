"""Notebook 01: from class names to synthetic images."""
