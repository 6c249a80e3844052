"""Workers: the only processes that hold secret values, one for each release, forked ahead of time from a warm parent."""
