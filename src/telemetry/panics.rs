//! Panics are logged with their place, and counted, before they unwind.
//!
//! A panic while one request is served answers 500 (see `http`); one in the commit path aborts the
//! process. Both are bugs, so a count above zero is worth an alert.

use std::panic::{self, PanicHookInfo};

/// The counter of panics since the start.
pub const PANICS_TOTAL: &str = "panics_total";

/// Logs and counts every panic of this process from now on.
pub fn install() {
    metrics::describe_counter!(PANICS_TOTAL, "Panics since the start; each is a bug");
    // Registers the counter, so that it reads 0 and not nothing until the first panic.
    metrics::counter!(PANICS_TOTAL).increment(0);
    panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    metrics::counter!(PANICS_TOTAL).increment(1);
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(
        place,
        thread = thread.name().unwrap_or_default(),
        backtrace = %backtrace,
        "panic: {}",
        message(info)
    );
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn panics_are_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let before = panic::take_hook();
        metrics::with_local_recorder(&recorder, || {
            install();
            assert!(recorder.handle().render().contains("panics_total 0"));
            let outcome = panic::catch_unwind(|| panic!("on purpose"));
            assert!(outcome.is_err());
        });
        panic::set_hook(before);
        assert!(recorder.handle().render().contains("panics_total 1"));
    }
}
