"""What checking a SAML response costs: the gate and python3-saml with its verification replaced, against python3-saml
alone with the same settings.

One honest response, plain and encrypted, each checked many times a round; milliseconds of processor time for one.
"""

import base64
import time
from collections.abc import Callable
from typing import Any

from onelogin.saml2.response import OneLogin_Saml2_Response
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from auth.saml.parties import IdentityProvider, ServiceProvider, library_request, library_settings
from auth.saml.request import new_sp_key
from auth.saml.validation import validate_response
from benchmarks.measure import Result, Round, compare, medians
from reference.idp import config
from reference.idp.response import Answer, build_response

CHECKS = 20
REQUEST_ID = "_a-request-of-ours"
ORIGIN = "https://acme.derma.example"

# Ours replaces it for the whole process, so the baseline puts it back.
_THEIRS = OneLogin_Saml2_Utils.validate_node_sign


async def run() -> list[Result]:
    key = config.SigningKey.generate()
    private_pem, certificate_pem = new_sp_key(ORIGIN)
    sp = ServiceProvider(
        f"{ORIGIN}/auth/saml/metadata", f"{ORIGIN}/auth/saml/acs", private_pem, certificate_pem
    )
    idp = IdentityProvider(
        "https://idp.example/metadata", "https://idp.example/sso", (key.certificate_pem.decode(),)
    )
    registered = config.ServiceProvider(sp.entity_id, sp.acs_url, certificate_pem.encode())
    user = config.User("u-gp", "gp@acme.derma.example", "Gerd Hausmann", ("derma-referrers",))
    answer = Answer(idp.entity_id, registered, user, REQUEST_ID)

    def ours(response: str) -> Any:
        return validate_response(response, sp, idp, REQUEST_ID).name_id

    def theirs(response: str) -> Any:
        OneLogin_Saml2_Utils.validate_node_sign = staticmethod(_THEIRS)
        opened = OneLogin_Saml2_Response(OneLogin_Saml2_Settings(library_settings(sp, idp)), response)
        opened.is_valid(library_request(sp.acs_url), REQUEST_ID, raise_exceptions=True)
        return opened.get_nameid()

    def a_round(check: Callable[[str], Any], *, encrypt: bool) -> Round:
        async def measure() -> float:
            # Made anew: it is good for five minutes.
            response = base64.b64encode(build_response(answer, key, encrypt=encrypt)).decode()
            started = time.process_time()
            for _ in range(CHECKS):
                assert check(response) == user.name_id
            return (time.process_time() - started) / CHECKS * 1000

        return measure

    results = []
    for name, what, encrypt in (
        ("saml.plain", "a signed assertion", False),
        ("saml.encrypted", "a signed assertion, encrypted", True),
    ):
        seen = await medians(
            {"ours": a_round(ours, encrypt=encrypt), "baseline": a_round(theirs, encrypt=encrypt)}
        )
        results.append(
            compare(
                name,
                f"{what}: gate and validation, against python3-saml alone",
                **seen,
                unit="ms",
                target=1.3,
                better="lower",
            )
        )
    return results
