"""Who may come in, and how much they may use. Pure.

    keys    the keys file: names, hashes, budgets
    doors   who may come in, what is open to them, what the engine is told of them
    limits  what each key has used of its budgets, and who must wait
"""
