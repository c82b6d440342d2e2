"""The operator's port: metrics, health, records and sums, for scrapers, orchestrators and people.

    port  the operator's port
"""
