"""A window in which an episode is to be seen."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from evolution.playing import Champion, NotShown, Trial, pictures_per_second, scenes

_WIDE, _HIGH = 640, 480  # pixels that a window has at least one of


def show(champion: Champion, trial: Trial) -> None:
    """Show an episode in a window, as fast as it is, until its end or until the window is closed.

    Args:
        champion: Who plays.
        trial: The episode.

    Raises:
        NotShown: There are no pictures of it, no window can be opened, or pygame is missing.
        EvaluationError: The environment raised.
    """
    seen = scenes(champion, trial.seed)
    first = next(seen)  # which says pygame to be quiet, and raises where there is nothing to be seen
    try:
        import pygame
    except ImportError:
        raise NotShown("a window needs pygame: pip install pygame, or give --gif FILE.") from None
    try:
        pygame.display.init()
        _play(pygame, champion, first.picture, seen)
    except pygame.error as error:
        raise NotShown(f"no window can be opened ({error}): give --gif FILE.") from error
    finally:
        pygame.display.quit()


def _play(pygame: Any, champion: Champion, picture: np.ndarray[Any, Any], seen: Any) -> None:
    height, width = picture.shape[:2]
    scale = max(1, min(_WIDE // width, _HIGH // height))
    screen = pygame.display.set_mode((width * scale, height * scale))
    pygame.display.set_caption(champion.name)
    pause = 1 / pictures_per_second(champion)
    due = time.monotonic()
    while True:
        image = pygame.surfarray.make_surface(np.ascontiguousarray(picture.swapaxes(0, 1)))
        screen.blit(pygame.transform.scale(image, screen.get_size()), (0, 0))
        pygame.display.flip()
        if any(event.type == pygame.QUIT for event in pygame.event.get()):
            return
        scene = next(seen, None)
        if scene is None:
            return
        picture = scene.picture
        due += pause
        time.sleep(max(0.0, due - time.monotonic()))
