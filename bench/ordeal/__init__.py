"""The ordeal: mixed load with kills, a collector's outage and a flood of tenants, and afterwards every record and joule looked for.

    clients    who asks, leaves and fails, and what each of them was told
    collector  takes spans, or hangs, or is not there
    play       the whole of it: engine, collector, one sidecar after the other, clients
    reckoning  what was told, kept, sent and counted, run by run, and whether it is the same
    command    `perjoule bench ordeal`
"""
