"""Every table of the ledger, as data: what `docs/ledger.md` describes and both databases are given.

Times are Unix nanoseconds, energies microjoules. An unknown number is NULL; an unknown name is NULL in `records`, and '' in
`rollups`, where it is part of the key.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

APPLICATION_ID = 0x504A4C31  # "PJL1", so that no other program's file is taken for a ledger
SCHEMA_VERSION = 2

GROUPS = ("model", "tenant", "outcome", "endpoint", "status")  # what sums are kept by
SUMS = ("input_tokens", "output_tokens", "energy_uj", "active_uj", "prefill_uj", "decode_uj", "steady_uj", "duration_ns")
COUNTS = ("requests", "with_energy")
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
SPANS_S = (MINUTE_S, HOUR_S, DAY_S)  # of a rollup

Big = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER is SQLite's row number
metadata = MetaData()

records = Table(
    "records", metadata,
    Column("position", Big, primary_key=True, autoincrement=True),  # rises in the order of commits, never given twice
    Column("record_id", Text, nullable=False, unique=True),
    Column("request_id", Text, nullable=False, index=True),
    Column("instance_id", Text, nullable=False),  # '' and 0 where an older version did not say
    Column("sequence", Big, nullable=False),
    Column("arrival_unix_ns", Big, nullable=False, index=True),
    Column("duration_ns", Big, nullable=False),
    Column("tenant", Text), Column("model", Text), Column("engine", Text, nullable=False), Column("endpoint", Text, nullable=False),
    Column("outcome", Text, nullable=False), Column("http_status", Integer),
    Column("input_tokens", Big), Column("output_tokens", Big),
    Column("energy_uj", Big), Column("active_uj", Big), Column("prefill_uj", Big), Column("decode_uj", Big), Column("steady_uj", Big),
    Column("status", Text, nullable=False), Column("method", Text, nullable=False), Column("trace_id", Text),
    Column("record", Text, nullable=False),  # the whole, as docs/records.md has it
    Index("records_by_model", "model", "arrival_unix_ns"),
    Index("records_by_sequence", "instance_id", "sequence"),
    sqlite_autoincrement=True,
)

rollups = Table(  # sums over the records that arrived in [begin_unix_ns, begin_unix_ns + span_s); NULL where no record had the number
    "rollups", metadata,
    Column("span_s", Integer, primary_key=True, autoincrement=False),
    Column("begin_unix_ns", Big, primary_key=True, autoincrement=False),
    *(Column(name, Text, primary_key=True) for name in GROUPS),
    *(Column(name, Big, nullable=False) for name in COUNTS),
    *(Column(name, Big) for name in SUMS),
    sqlite_with_rowid=False,
)

balances = Table(  # sidecar.record.Balance: the account of a run; every record up to `sequence` was stored before it, or counted as lost
    "balances", metadata,
    Column("instance_id", Text, primary_key=True),
    Column("unix_ns", Big, primary_key=True, autoincrement=False),
    Column("sequence", Big, nullable=False),
    Column("measured_uj", Big, nullable=False), Column("requests_uj", Big, nullable=False), Column("idle_uj", Big, nullable=False),
    Column("unattributed_uj", Big, nullable=False), Column("settled_uj", Big, nullable=False),
    Column("source", Text, nullable=False), Column("status", Text, nullable=False),
    Column("host_uj", Big),
    Index("balances_by_time", "unix_ns"),
)

kept = Table(  # from when on records (span_s 0) and rollups are whole; no row: from the beginning
    "kept", metadata,
    Column("span_s", Integer, primary_key=True, autoincrement=False),
    Column("since_unix_ns", Big, nullable=False),
)

dropped = Table(  # what retention has dropped of the records of a run, so that they are not taken for lost
    "dropped", metadata,
    Column("instance_id", Text, primary_key=True),
    Column("records", Big, nullable=False), Column("energy_uj", Big, nullable=False),
    Column("first_sequence", Big, nullable=False), Column("last_sequence", Big, nullable=False),
)

cursors = Table(  # how far a reader of `records` has come, by position; whose turn it is until when, where several sidecars share a ledger
    "cursors", metadata,
    Column("name", Text, primary_key=True),
    Column("position", Big, nullable=False),
    Column("holder", Text, nullable=False), Column("held_until_unix_ns", Big, nullable=False),
)

grid_intensity = Table(  # what a kilowatt-hour of the grid emitted, as somebody said it
    "grid_intensity", metadata,
    Column("source", Text, primary_key=True), Column("zone", Text, primary_key=True),
    Column("kind", Text, primary_key=True),  # average or marginal
    Column("begin_unix_ns", Big, primary_key=True, autoincrement=False),
    Column("until_unix_ns", Big, nullable=False),
    Column("value", Text, nullable=False), Column("unit", Text, nullable=False),  # as it was told
    Column("mg_per_kwh", Big, nullable=False),  # the same, to the next mg
    Column("estimated", Integer),  # 1 where the source calls it an estimate, NULL where it does not say
    Column("fetched_unix_ns", Big, nullable=False),
)

about = Table(  # which schema this is, where the database itself has no place to say it (PostgreSQL)
    "about", metadata,
    Column("name", Text, primary_key=True),
    Column("value", Big, nullable=False),
)
