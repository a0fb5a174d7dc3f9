"""The session table as the policy maps it: columns, ids, time zones, and what has expired."""
