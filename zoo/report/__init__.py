"""What run directories hold, as pictures, pages and tables."""

from zoo.report.comparison import compare
from zoo.report.single import write_report

__all__ = ["compare", "write_report"]
