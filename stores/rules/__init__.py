"""The rules that tell abnormal and invalid sessions from good ones.

Each rule type is one module, named after it: ``LoginBurst`` is the class of that name in ``login_burst.py``. It says
what must be mapped, which rows of the table it may apply to (in SQL), and whether it applies to a session (in Python).
To add one, write its module and its line in :class:`policy.rules.RuleType`.

Nothing here does I/O: queries are made here, and run by the store.
"""
