"""Losses of many networks that each differ from one in a single parameter."""

from zoo.nn.coordinates.engine import Cached, Coordinates

__all__ = ["Cached", "Coordinates"]
