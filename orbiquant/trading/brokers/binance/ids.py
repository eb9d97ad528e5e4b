"""What an order's id says: whose it is, which intent it carries out, and what it is there for."""

from ....orders import OrderRole

STOP_LEG, TARGET_LEG, PAIR = "sto", "tar", "oco"
_ROLES = {each.value[:3]: each for each in OrderRole}


def intent_of(
    client_order_id: str,  # "atlas-0123456789abcdef-sto2"
) -> str:
    "Return the intent that an order belongs to."
    return client_order_id.rpartition("-")[0]


def leg_id(
    entry_id: str,  # of the order that opened the position
    kind: str,  # STOP_LEG, TARGET_LEG or PAIR
    number: int,  # of the protection, from 0: each that is put in another's place counts one more
) -> str:
    "Return the id of a leg: derived, so that a fill of it is attributed without anything remembered."
    return f"{intent_of(entry_id)}-{kind}{number or ''}"


def number_of(
    client_order_id: str,  # of a leg
) -> int:
    "Return which protection a leg belongs to."
    return int(client_order_id.rpartition("-")[2][3:] or 0)


def role_of(
    client_order_id: str,  # of any order of the account
) -> OrderRole:
    "Return what an order is there for; of one that is not ours, an entry."
    return _ROLES.get(client_order_id.rpartition("-")[2][:3], OrderRole.ENTRY)


def is_leg(
    client_order_id: str,  # of any order of the account
    entry_id: str,  # of an entry
) -> bool:
    "Say whether an order protects what an entry opened."
    return intent_of(client_order_id) == intent_of(entry_id) and role_of(client_order_id) in (
        OrderRole.STOP,
        OrderRole.TARGET,
    )
