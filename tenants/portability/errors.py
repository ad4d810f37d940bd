"""What can go wrong between a tenant and its bundle."""

from core.problems import Conflict, Invalid


class BundleExists(Conflict):
    slug, title = "bundle-exists", "There is something at this path already"


class BundleRefused(Invalid):
    slug, title = "bundle-refused", "The bundle cannot be trusted"
