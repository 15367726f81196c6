//! What the server tells its operator: logs, figures, and panics.
//!
//! `cli::serve` sets all three up before anything else runs. The rest of the server only uses the
//! macros of `tracing` and `metrics`, which need nothing from here.

pub mod logging;
pub mod metrics;
pub mod panics;
