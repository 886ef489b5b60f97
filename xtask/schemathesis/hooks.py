"""Which refusals of requests that fit the OpenAPI document are no findings.

The check `positive_data_acceptance` wants every request that fits the document to be accepted. A JSON schema cannot say
all that a valid request must be, so some refusals are right all the same. They are listed here one by one: whatever is
refused for another reason, or in another place, is a finding.
"""

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# A schema counts characters, and the server counts bytes.
BYTES_MAX = {"customer_id": 128, "userId": 128, "name": 200, "reason": 500}
BUYING = {"POST /v1/orders", "POST /orders", "POST /buy", "POST /purchase"}


def is_too_long(name, value):
    bytes_max = BYTES_MAX.get(name)
    if bytes_max is None or not isinstance(value, str):
        return False
    return len(value) <= bytes_max < len(value.encode(errors="surrogatepass"))


def excused_in(body, pointer=""):
    """Pointers to what is refused by rules that hold for single values."""
    for name, value in body.items():
        here = f"{pointer}/{name}"
        # 1.0 is an integer to a schema. The server reads whole numbers only.
        if isinstance(value, float) or is_too_long(name, value):
            yield here
        if isinstance(value, dict):
            yield from excused_in(value, here)


def excused(case):
    body = case.body if isinstance(case.body, dict) else {}
    yield from excused_in(body)
    # Only the holder of a customer token may leave out who buys, and these requests come with a key.
    if case.operation.label in BUYING and body.get("customer_id") is None and body.get("userId") is None:
        yield "/customer_id"
    # Each product says how many units fit in one order; the document says how many fit in any.
    quantity = body.get("quantity")
    if isinstance(quantity, int) and quantity > 1:
        yield "/quantity"
    # A window ends after it begins; where it is changed, its other end may be there already.
    if body.get("starts_at") is not None or body.get("ends_at") is not None:
        yield "/ends_at"
    for name, value in {**(case.path_parameters or {}), **(case.query or {})}.items():
        if is_too_long(name, value):
            yield ""


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if not isinstance(failure, RejectedPositiveData):
        return True
    # The key was used for another request: what was asked before is not in a schema.
    if response.status_code == 422:
        return False
    if response.status_code != 400:
        return True
    pointers = set(excused(case))
    problem = response.json()
    if "errors" in problem:
        return not all(error["pointer"] in pointers for error in problem["errors"])
    # The older systems' errors do not say where.
    return not pointers
