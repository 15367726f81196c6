//! Files: stored once, removed with their last use, clean after a crash.
