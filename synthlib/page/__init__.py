"""The page that shows everything: figures/<experiment>/report.html, executed notebooks beside it, an index over experiments."""
