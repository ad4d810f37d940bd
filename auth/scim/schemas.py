"""What goes over the wire: the parts of RFC 7643's User and Group that are kept here, and what this service can do.

Directories send more than that (telephone numbers, addresses, managers). What nobody needs for signing in is not
kept: it is accepted and dropped, so that a directory's usual mapping works as it is.
"""

from typing import Annotated, Any

from pydantic import Field
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    ETag,
    Filter,
    GroupMembership,
    Mutability,
    Pagination,
    Patch,
    Reference,
    Required,
    Resource,
    Role,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

PAGE = 100
LARGEST_PAGE = 200
LONGEST_NAME = 500  # of what indexes hold

Text = Annotated[str, Field(max_length=500)]


class Name(ComplexAttribute):
    """The parts of somebody's name."""

    formatted: Text | None = None
    family_name: Text | None = None
    given_name: Text | None = None
    honorific_prefix: Text | None = None


class Email(ComplexAttribute):
    """An address. Hospitals have addresses under names like `.local`, so its form is not judged."""

    value: Text | None = None
    display: Text | None = None
    type: Text | None = Field(None, examples=["work", "home", "other"])
    primary: bool | None = None


class User(Resource[Any]):
    """A person whom the tenant's directory brought."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[Text | None, Uniqueness.server, Required.true] = None
    name: Name | None = None
    display_name: Text | None = None
    active: bool | None = None
    emails: Annotated[list[Email] | None, Field(max_length=20)] = None
    groups: Annotated[list[GroupMembership] | None, Mutability.read_only] = None
    roles: Annotated[list[Role] | None, Mutability.read_only] = None
    """What the person may do here: granted here and by groups, and never by a directory directly."""


class Member(ComplexAttribute):
    """Somebody in a group; groups in groups are not kept."""

    value: Annotated[Text | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )


class Group(Resource[Any]):
    """A group of the tenant's directory."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[Text | None, Uniqueness.server, Required.true] = None
    members: list[Member] | None = None


PROVIDER = ScimProvider(
    models=[User, Group],
    config=ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=LARGEST_PAGE),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        pagination=Pagination(
            cursor=False,
            index=True,
            default_pagination_method=Pagination.DefaultPaginationMethod.index,
            default_page_size=PAGE,
            max_page_size=LARGEST_PAGE,
        ),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="Bearer token",
                description="A token that `dermadetect scim token create` made for this tenant.",
                primary=True,
            )
        ],
    ),
    policy=ScimPolicy(
        unknown=ScimPolicy.Unknown.ignore,
        # Both as Microsoft Entra sends them.
        remove_value_as_filter=ScimPolicy.RemoveValue.apply,
        unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
    ),
)
