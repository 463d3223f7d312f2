"""Notebook 02: from synthetic images to classifiers."""
