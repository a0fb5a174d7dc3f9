"""Types that all stores share: sessions, times, errors, ranges of keys. No I/O."""
