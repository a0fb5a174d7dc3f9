"""The cleanup run held against its goals: each a ratio against the barest means in the same run, on real servers."""
