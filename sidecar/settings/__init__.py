"""Every setting, and where it comes from: flags, environment, one file, and the secrets beside them.

    config       every setting there is, and what it may be
    sources      flags, environment and file, which mean the same things
    reload       what a reload changes, and what waits for a restart
    credentials  keys and tokens, read from where they are kept
"""
