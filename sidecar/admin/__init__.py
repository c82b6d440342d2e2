"""The operator's port: metrics, health, records and sums, for scrapers, orchestrators and people.

    answers  what is asked, and answered: JSON, and errors in OpenAI's shape
    queries  the parameters of a question about stored records
    guard    who is answered
    page     the live page: one document that may load nothing
    feed     its events, computed once for all who look
    port     the operator's port
"""
