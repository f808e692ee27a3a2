"""What a report says of a run: scores, where everyone ended, the champion's family and its best episode."""
