"""What progress needs of rich, which draws from Python's global generator as it is imported."""

from __future__ import annotations

from zoo.core.rng import Key, keyed_generators

with keyed_generators(Key(0)):
    from rich.cells import cell_len
    from rich.console import Console, ConsoleDimensions, ConsoleOptions
    from rich.panel import Panel
    from rich.text import Text

__all__ = ["Console", "ConsoleDimensions", "ConsoleOptions", "Panel", "Text", "cell_len"]
