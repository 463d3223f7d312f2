"""What a reader sees (notebook 04): statistics, tables, figures, report; and here, what those call things."""

from synthlib.settings import EVALUATION_MODES, TRICKS

MODE_LABELS = {"eval": "eval mode", "authors": "authors' mode"}


def trick_label(trick: str) -> str:
    """The words for a trick in tables and figures; merged_full says that it is three times the size."""
    return "merged, full (3n images)" if trick == "merged_full" else trick.replace("_", " ")


def trick_order(trick: str) -> tuple[int, str]:
    """Sort key: the order of `settings.TRICKS`, then any other condition by name."""
    return (TRICKS.index(trick) if trick in TRICKS else len(TRICKS), trick)


def mode_order(mode: str) -> tuple[int, str]:
    """Sort key: the order of `settings.EVALUATION_MODES`, then any other by name."""
    return (EVALUATION_MODES.index(mode) if mode in EVALUATION_MODES else len(EVALUATION_MODES), mode)
