//! The figures, as a table while they come in and as JSON at the end.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    measure::{Rate, of_u64, percentile},
    sync::Delivery,
};

/// All figures so far.
pub(crate) struct Report {
    sections: Map<String, Value>,
    section: String,
}

impl Report {
    /// No figures.
    pub(crate) fn new() -> Self {
        Self { sections: Map::new(), section: String::new() }
    }

    /// The heading of what follows.
    pub(crate) fn section(&mut self, name: &str) {
        println!("{name}");
        name.clone_into(&mut self.section);
    }

    /// One plain figure.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str) {
        let parts = ["ms", "rows"].contains(&unit);
        let shown = if parts { format!("{value:.1}") } else { format!("{value:.0}") };
        self.line(name, &format!("{shown:>9} {unit}"));
        self.keep(name, json!({ "value": value, "unit": unit }));
    }

    /// An amount of memory or disk.
    pub(crate) fn memory(&mut self, name: &str, bytes: u64) {
        let mib = of_u64(bytes) / (1024.0 * 1024.0);
        self.line(name, &format!("{mib:>9.1} MiB"));
        self.keep(name, json!({ "value": bytes, "unit": "B" }));
    }

    /// How fast something was done.
    pub(crate) fn rate(&mut self, name: &str, rate: &Rate) {
        let (p50, p99) = (ms(rate.p50), ms(rate.p99));
        let text = format!("{:>9.0} /s   p50 {p50:>8.3} ms   p99 {p99:>8.3} ms", rate.per_second);
        self.line(name, &format!("{text}{}", cpu(rate.cpu)));
        self.keep(
            name,
            json!({
                "per_second": rate.per_second,
                "p50_ms": p50,
                "p99_ms": p99,
                "cpu_us": rate.cpu.map(us),
            }),
        );
    }

    /// How soon waiting clients were told.
    pub(crate) fn delivery(&mut self, waiters: usize, delivery: &Delivery) {
        let name = format!("delivery to {waiters} waiting");
        let (last, worst) =
            (ms(percentile(&delivery.last, 50)), ms(percentile(&delivery.last, 99)));
        let middle = ms(percentile(&delivery.middle, 50));
        let bytes = delivery.answer_bytes;
        let text = format!(
            "{last:>9.2} ms to the last   {middle:.2} ms to the middle   worst {worst:.2} ms"
        );
        self.line(&name, &format!("{text}{} each, {bytes} B", cpu(delivery.cpu)));
        self.keep(
            &name,
            json!({
                "last_p50_ms": last,
                "last_max_ms": worst,
                "middle_p50_ms": middle,
                "cpu_us_each": delivery.cpu.map(us),
                "answer_bytes": bytes,
            }),
        );
    }

    /// The figures as JSON, by section and name.
    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", Value::Object(self.sections.clone()))
    }

    #[expect(clippy::unused_self, reason = "lines are printed only by a report")]
    fn line(&self, name: &str, text: &str) {
        println!("  {name:<28}{text}");
    }

    fn keep(&mut self, name: &str, value: Value) {
        let section = self.sections.entry(self.section.clone()).or_insert_with(|| json!({}));
        // A figure that is measured twice in a section keeps its last value.
        section[name] = value;
    }
}

fn cpu(cpu: Option<Duration>) -> String {
    cpu.map_or_else(String::new, |cpu| format!("   CPU {:.0} µs", us(cpu)))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000_000.0
}
