"""How pages write numbers."""


def plain(number: float) -> str:
    """Write a mean or a time with at most one digit after the point: ``41.3``, ``5``, ``1,204``."""
    return f"{number:,.1f}".removesuffix(".0")
