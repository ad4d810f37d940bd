"""What can go wrong with an order."""

from core.problems import Conflict, NotFound


class OperationUnderWay(Conflict):
    slug, title = "operation-under-way", "Another operation on the tenant is not finished"


class OperationNotFound(NotFound):
    slug, title = "operation-not-found", "No such operation"
