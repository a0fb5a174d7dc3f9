"""What every store speaks of: sessions, times, errors, ranges of keys. No I/O."""
