"""The rules that tell abnormal and invalid sessions: one module per rule type, and the table that lists them.

Nothing here does I/O. A rule is a function of what is known of one session, and of what was learnt of all before.
"""
