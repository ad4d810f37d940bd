"""What can go wrong on the way from one cell to another."""

from core.problems import Conflict


class MoveRefused(Conflict):
    slug, title = "move-refused", "The tenant cannot be moved like this"


class MoveUnfinished(Conflict):
    slug, title = "move-unfinished", "The tenant is being moved"


class CopyDiffers(Conflict):
    """The new copy is not what the old one is; the tenant stays where it was."""

    slug, title = "copy-differs", "The copy differs from what was copied"
