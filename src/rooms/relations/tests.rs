//! What relates to what, on the memory engine.
