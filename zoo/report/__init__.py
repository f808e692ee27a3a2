"""What a run directory holds, as pictures, pages and tables."""
