//! What the DNS says of servers beyond their addresses: records of services.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::time::{Duration, Instant};

use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    proto::rr::{RData, rdata::SRV},
};

/// The names of the service, the current one first.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];
/// How long an answer is kept, at least (also that there was none) and at most.
const KEPT_MIN: Duration = Duration::from_mins(1);
const KEPT_MAX: Duration = Duration::from_hours(24);
/// How many records of a name are looked at.
const RECORDS_MAX: usize = 32;

/// Asks name servers.
#[derive(Debug)]
pub(super) enum Dns {
    /// Those that the system is told to ask; none where that cannot be read.
    System(Option<Box<TokioResolver>>),
    /// What a test says.
    #[cfg(test)]
    Fixed(Vec<Target>),
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where a service is, the best place first, and how long that holds.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) targets: Vec<Target>,
    pub(super) kept: Duration,
}

impl Dns {
    pub(super) fn system() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
        if let Err(error) = &resolver {
            tracing::warn!(%error, "the system's name servers are not known: servers that are \
                named in SRV records alone will not be found");
        }
        Self::System(resolver.ok().map(Box::new))
    }

    /// The records of a host's service; none where it has none, or they cannot be had.
    pub(super) async fn services(&self, host: &str) -> Services {
        let resolver = match self {
            Self::System(Some(resolver)) => resolver,
            Self::System(None) => return Services::none(),
            #[cfg(test)]
            Self::Fixed(targets) => {
                return Services { targets: targets.clone(), kept: KEPT_MIN };
            }
        };
        for service in SERVICES {
            // With the dot no search list of the system applies.
            let name = format!("{service}.{host}.");
            let lookup = match resolver.srv_lookup(name.as_str()).await {
                Ok(lookup) => lookup,
                Err(error) => {
                    if !error.is_no_records_found() {
                        tracing::debug!(%error, name, "a service record could not be looked up");
                    }
                    continue;
                }
            };
            let records = lookup.answers().iter().take(RECORDS_MAX);
            let records = records.filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service.clone()),
                _ => None,
            });
            let targets = in_order(records.collect(), random);
            if !targets.is_empty() {
                let left = lookup.valid_until().saturating_duration_since(Instant::now());
                return Services { targets, kept: left.clamp(KEPT_MIN, KEPT_MAX) };
            }
        }
        Services::none()
    }
}

impl Services {
    fn none() -> Self {
        Self { targets: Vec::new(), kept: KEPT_MIN }
    }
}

/// Records in the order in which they are to be tried (RFC 2782): by priority, and by chance where
/// it is the same, those of more weight more often first. `.` says that there is no service.
fn in_order(mut records: Vec<SRV>, random: impl Fn(u64) -> u64) -> Vec<Target> {
    records.retain(|record| !record.target.is_root());
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut targets = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let same = records.iter().take_while(|record| record.priority == priority);
        let weights: Vec<u64> = same.map(|record| u64::from(record.weight)).collect();
        let mut drawn = random(weights.iter().sum::<u64>() + 1);
        let chosen = weights.iter().position(|weight| {
            let hit = drawn <= *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        let record = records.remove(chosen.unwrap_or(0));
        let host = record.target.to_utf8().trim_end_matches('.').to_owned();
        targets.push(Target { host, port: record.port });
    }
    targets
}

/// A number below `end`.
fn random(end: u64) -> u64 {
    getrandom::u64().unwrap_or_default() % end.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, target: &str) -> SRV {
        SRV::new(priority, weight, 8448, target.parse().unwrap())
    }

    #[test]
    fn the_order_is_by_priority_then_by_weight() {
        let records = vec![
            record(20, 0, "last.example."),
            record(10, 1, "light.example."),
            record(10, 9, "heavy.example."),
            record(5, 0, "."),
        ];
        let names = |drawn: u64| -> Vec<String> {
            let targets = in_order(records.clone(), |end| drawn.min(end - 1));
            targets.into_iter().map(|target| target.host).collect()
        };
        assert_eq!(names(1), ["light.example", "heavy.example", "last.example"]);
        assert_eq!(names(9), ["heavy.example", "light.example", "last.example"]);
    }

    #[tokio::test]
    async fn without_name_servers_there_are_no_records() {
        assert!(Dns::System(None).services("hs1.example").await.targets.is_empty());
    }
}
