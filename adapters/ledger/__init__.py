"""The ledger: records kept through `kill -9` in SQLite or PostgreSQL, with sums by minute, hour and day that outlive them.

    tables        every table, as data
    schema        makes the tables, or brings those of an older version up to date
    transactions  what both databases can do
    sqlite        a file
    postgres      a server
    database      which of the two it is
    rows          how rows are written, and the sums of some
    tiers         which sums and which records together cover a stretch of time
    retention     what is dropped when, and what remains of it
    queries       questions: one record, the latest, groups, all
    verify        whether every joule is accounted for between two times
    cursors       how far a reader of all records has come
    drawn         what was drawn beside requests, and how finely sums are still cut
    intensities   what the grid emitted
    store         the place that records go to

SQLAlchemy Core speaks to both. Nothing outside imports it before a ledger is asked for: it takes 15 MB.
"""
