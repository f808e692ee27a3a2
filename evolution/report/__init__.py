"""What a report says of a run: curves, where everyone ended, where the champion comes from, and its episode."""
