"""Whether an audit log is as it was sealed: every digest and the chain are computed anew.

Rows are hashed by the server, as `audit.seal` did, so that no row travels; the chain is followed here.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

import asyncpg

PAGE = 500  # seals at a time

_BOUNDS = """
    SELECT least(1, (SELECT min(seq) FROM {log}.audit_seals), (SELECT min(seal) FROM {log}.audit_events)) AS first,
        greatest(0, (SELECT max(seq) FROM {log}.audit_seals), (SELECT max(seal) FROM {log}.audit_events)) AS last,
        (SELECT count(*) FROM {log}.audit_events WHERE seal IS NULL AND created_at < now() - $1::interval) AS overdue
"""
_SEALS = """
    SELECT number.seq, seal.hash, seal.previous, seal.digest, seal.events,
        extract(epoch FROM seal.sealed_at)::text AS sealed_at, rows.found, rows.digest AS computed
    FROM generate_series($1::bigint, $2::bigint) AS number (seq)
    LEFT JOIN {log}.audit_seals AS seal ON seal.seq = number.seq
    CROSS JOIN LATERAL (
        SELECT count(*) AS found, sha256(string_agg(
            sha256(convert_to(jsonb_strip_nulls(to_jsonb(event) - 'seal')::text, 'UTF8')), '' ORDER BY event.id
        )) AS digest
        FROM {log}.audit_events AS event WHERE event.seal = number.seq
    ) AS rows
    ORDER BY number.seq
"""


@dataclass(frozen=True)
class Verdict:
    """What was found in one log. `head` is the hash of its last seal, `seal` the first one that is broken, if any."""

    seals: int
    events: int
    overdue: int
    head: str
    seal: int | None
    wrong: str | None


async def verify(
    connection: asyncpg.Connection,
    schema: str,
    *,
    overdue_after: timedelta,
    known: tuple[int, str] | None = None,
) -> Verdict:
    """Verify the log in `schema`, a checked name of ours, up to the first broken seal. `connection` must be in UTC.

    `known` is number and hash of a seal noted earlier: only this shows that the newest seals were cut off or the
    whole chain was written anew. `overdue` counts rows that were not sealed within `overdue_after`.
    """
    bounds = await connection.fetchrow(_BOUNDS.format(log=schema), overdue_after)
    assert bounds is not None
    lowest, highest, overdue = bounds
    head, seals, events = bytes(32), 0, 0
    wrong: str | None = None
    for first in range(lowest, highest + 1, PAGE):
        for row in await connection.fetch(_SEALS.format(log=schema), first, min(first + PAGE - 1, highest)):
            wrong = _wrong(row, head) or _unlike(known, row["seq"], row["hash"])
            if wrong:
                return Verdict(seals, events, overdue, head.hex(), row["seq"], wrong)
            head, seals, events = row["hash"], seals + 1, events + row["events"]
    if known is not None and known[0] > highest:
        return Verdict(
            seals, events, overdue, head.hex(), highest + 1, f"missing; there was a seal {known[0]}"
        )
    wrong = f"{overdue} rows have no seal yet" if overdue else None
    return Verdict(seals, events, overdue, head.hex(), None, wrong)


def _wrong(row: asyncpg.Record, previous: bytes) -> str | None:
    if row["hash"] is None:
        return f"missing; {row['found']} rows say that it covers them"
    content = f"{row['seq']}|{row['sealed_at']}|{row['events']}|{row['digest'].hex()}|{row['previous'].hex()}"
    if hashlib.sha256(content.encode()).digest() != row["hash"]:
        return "the seal was changed"
    if row["previous"] != previous:
        return "the seal does not follow the one before it: one of the two was replaced"
    if row["found"] < row["events"]:
        return f"{row['events'] - row['found']} of {row['events']} rows are missing"
    if row["found"] > row["events"]:
        return f"{row['found'] - row['events']} rows were added to its {row['events']}"
    if row["computed"] != row["digest"]:
        return f"one of its {row['events']} rows was changed"
    return None


def _unlike(known: tuple[int, str] | None, seq: int, hash_: bytes) -> str | None:
    if known is not None and known[0] == seq and known[1] != hash_.hex():
        return "the seal is another than was noted earlier"
    return None
