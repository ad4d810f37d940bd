"""What can go wrong with local administrators."""

from core.problems import Conflict, Invalid, NotFound


class NoLocalSignIn(NotFound):
    slug, title = "no-local-sign-in", "Nobody signs in here with a password"


class NothingAsked(Invalid):
    slug, title = "nothing-asked", "No app waits for this sign-in"


class LocalAdministratorExists(Conflict):
    slug, title = "local-administrator-exists", "There is a local administrator of this name"


class LocalAdministratorNotFound(NotFound):
    slug, title = "local-administrator-not-found", "No such local administrator"


class WeakPassword(Invalid):
    slug, title = "weak-password", "The password is too easy to guess"
