"""What run directories hold, as pictures, pages and tables."""

from zoo.report.single import write_report

__all__ = ["write_report"]
