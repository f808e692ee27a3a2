"""The contracts everything else is written against: data, randomness, objectives, bounds."""
