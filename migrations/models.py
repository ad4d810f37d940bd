"""Every table of the product, imported so that the metadata is complete."""

import tenants.audit.models
import tenants.background.models
import tenants.directory.models
import tenants.plans.models
import tenants.provisioning.models  # noqa: F401
from core.models import ControlBase, TenantBase

CONTROL = ControlBase.metadata
TENANT = TenantBase.metadata
