"""Notebook 03: classifiers tested on real images; measures of the synthetic sets."""
