"""Two schemas with the same tables, compared row by row."""

import json
from typing import Final

from psycopg import sql

from services.projector.database import Writer
from services.projector.progress import Progress

_SHOWN: Final = 3
_LONGEST: Final = 80
# `freshness` tells about the clock of whoever reads the log, not about the log.
_TABLES: Final = """
    SELECT table_name::text, array_agg(column_name::text ORDER BY ordinal_position)
    FROM information_schema.key_column_usage
    WHERE constraint_schema = %s AND table_name <> 'freshness' GROUP BY 1 ORDER BY 1
"""
_COUNTS: Final = sql.SQL("""
    SELECT count(live), count(rebuilt), count(*) FILTER (WHERE live IS DISTINCT FROM rebuilt)
    FROM {live} AS live FULL JOIN {rebuilt} AS rebuilt USING ({key})
""")
_EXAMPLES: Final = sql.SQL("""
    SELECT ARRAY[{key_texts}], to_jsonb(live), to_jsonb(rebuilt)
    FROM {live} AS live FULL JOIN {rebuilt} AS rebuilt USING ({key})
    WHERE live IS DISTINCT FROM rebuilt ORDER BY 1 LIMIT {most}
""")

_WORSE: Final = sql.SQL("""
    SELECT live.org_id, CASE WHEN live.halt_why IS NULL THEN made.halt_why END, COALESCE(made.revision, 0), live.revision
    FROM {live} AS live LEFT JOIN {rebuilt} AS made USING (org_id)
    WHERE live.halt_why IS NULL AND made.halt_why IS NOT NULL OR COALESCE(made.revision, 0) < live.revision
    ORDER BY 1
""")


def compare(session: Writer, live: str, rebuilt: str, progress: Progress) -> int:
    """Say for each table how many rows it has, how many differ and which are the first; gives how many differ in all.

    `live` and `rebuilt` are schemas. Raises psycopg.Error.
    """
    differing = 0
    for table, key in session.execute(_TABLES, [rebuilt]).fetchall():
        progress.doing(f"comparing {table}")
        parts = {
            "live": sql.Identifier(live, table),
            "rebuilt": sql.Identifier(rebuilt, table),
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "key_texts": sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in key),
            "most": sql.Literal(_SHOWN),
        }
        [(rows, made, differ)] = session.execute(_COUNTS.format(**parts)).fetchall()
        progress.say(f"{table}: {rows} rows live, {made} rebuilt, {differ} differ")
        if differ:
            for place, before, after in session.execute(_EXAMPLES.format(**parts)).fetchall():
                progress.say(f"  {' '.join(place)}: {_difference(before, after)}")
        differing += differ
    return differing


def worse_orgs(session: Writer, live: str, rebuilt: str) -> list[str]:
    """The organisations that only the rebuilt tables hold to be halted, or whose ledger ends earlier there, each with why.

    Raises psycopg.Error.
    """
    tables = {"live": sql.Identifier(live, "heads"), "rebuilt": sql.Identifier(rebuilt, "heads")}
    return [
        f"{org} would be halted ({halt})" if halt else f"{org} would end at revision {made}, it ends at {known}"
        for org, halt, made, known in session.execute(_WORSE.format(**tables)).fetchall()
    ]


def _difference(live: str | None, rebuilt: str | None) -> str:
    if live is None or rebuilt is None:
        return "only rebuilt" if live is None else "only live"
    before, after = json.loads(live), json.loads(rebuilt)
    changed = [name for name in after if before[name] != after[name]]
    return "; ".join(f"{name} is {_short(before[name])}, rebuilt {_short(after[name])}" for name in changed)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
