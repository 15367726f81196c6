//! The section `[database]`: where data is kept, and how much memory serves it.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where data is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The folder of the database. It is made if it does not exist; nothing else may write to it.
    pub path: PathBuf,

    /// How much memory, in MiB, the database's caches and write buffers may take together. Without
    /// it the server takes a share of the machine's memory (or of its control group's limit): a
    /// tenth on a small machine, a fifth on one with 8 GiB, two fifths from 64 GiB on.
    ///
    /// Example: `512`
    pub memory_mb: Option<u64>,

    /// Whether an answer waits until the data is on disk. Without it a power failure may lose
    /// the last seconds that users believed sent; a crash of the server alone never does.
    pub durable: bool,

    /// A folder in which the running server keeps backups of the database, best on another disk.
    /// Only what changed is copied. The files of users are not part of it. Without it there are the
    /// backups alone that `causerie backup` makes.
    ///
    /// Example: `"/var/backups/causerie"`
    pub backup_path: Option<PathBuf>,

    /// How many hours lie between two backups of the running server.
    pub backup_interval_hours: u64,

    /// How many backups the running server keeps.
    pub backup_keep: usize,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/database"),
            memory_mb: None,
            durable: true,
            backup_path: None,
            backup_interval_hours: 24,
            backup_keep: 7,
        }
    }
}

const MIB: u64 = 1024 * 1024;

/// What the server takes of a machine's memory, in MiB; in between it grows evenly.
const SHARES: [(u64, u64); 5] =
    [(256, 32), (512, 48), (2_048, 192), (8_192, 1_536), (65_536, 26_214)];

impl DatabaseConfig {
    /// The memory for caches and write buffers, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let mib = self.memory_mb.unwrap_or_else(|| share_of(machine_memory_bytes() / MIB));
        mib.saturating_mul(MIB)
    }
}

fn share_of(machine_mib: u64) -> u64 {
    for pair in SHARES.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        if machine_mib <= to {
            let above = machine_mib.saturating_sub(from);
            return low + (high - low) * above / (to - from);
        }
    }
    machine_mib / 5 * 2
}

/// The machine's memory, or the limit of the control group that the process is in, in bytes.
fn machine_memory_bytes() -> u64 {
    let installed = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let limit = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| cgroup_limit(&groups, |path| fs::read_to_string(path).ok()));
    // A system that tells neither is treated like a small one.
    installed.into_iter().chain(limit).min().unwrap_or(1_024 * MIB)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The lowest limit of the group and of those around it; version 1 and version 2 of control groups.
fn cgroup_limit(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = group.trim_end_matches('/');
        loop {
            let limit = read(&format!("{root}{group}/{file}"))
                .and_then(|text| text.trim().parse::<u64>().ok());
            lowest = lowest.into_iter().chain(limit).min();
            match group.rsplit_once('/') {
                Some((parent, _)) => group = parent,
                None => break,
            }
        }
    }
    lowest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_with_the_machine() {
        let cases = [
            (128, 32),
            (512, 48),
            (1_024, 96),
            (2_048, 192),
            (8_192, 1_536),
            (65_536, 26_214),
            (131_072, 52_428),
        ];
        for (machine, share) in cases {
            assert_eq!(share_of(machine), share, "{machine} MiB");
        }
    }

    #[test]
    fn a_setting_overrules_the_machine() {
        let config = DatabaseConfig { memory_mb: Some(64), ..DatabaseConfig::default() };
        assert_eq!(config.memory_bytes(), 64 * MIB);
        assert!(DatabaseConfig::default().memory_bytes() >= 32 * MIB);
    }

    #[test]
    fn the_installed_memory_is_read() {
        let text = "MemTotal:       24683852 kB\nMemFree:        21594276 kB\n";
        assert_eq!(mem_total(text), Some(24_683_852 * 1024));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_lowest_limit_around_the_group_counts() {
        let read = |path: &str| match path {
            "/sys/fs/cgroup/system.slice/causerie.service/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/system.slice/memory.max" => Some("536870912\n".to_owned()),
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes" => Some("1048576\n".to_owned()),
            _ => None,
        };
        let version_2 = "0::/system.slice/causerie.service\n";
        assert_eq!(cgroup_limit(version_2, read), Some(536_870_912));
        let version_1 = "5:cpu,cpuacct:/docker\n4:memory:/docker\n";
        assert_eq!(cgroup_limit(version_1, read), Some(1_048_576));
        assert_eq!(cgroup_limit("0::/\n", read), None);
    }
}
