//! A table of nonsense, and the sentence that refuses each.

use ruma::server_name;

use super::*;
use crate::config::{Secret, Serves, Tls};

fn default() -> Config {
    Config::for_server(server_name!("example.org").to_owned())
}

fn tcp(address: &str) -> Listener {
    let address = ListenAddress::Tcp(address.parse().unwrap());
    Listener { address, serves: Serves::Both, tls: None }
}

fn unix(path: &str) -> Listener {
    let address = ListenAddress::Unix { path: path.into(), mode: 0o660 };
    Listener { address, serves: Serves::Both, tls: None }
}

fn tls() -> Tls {
    Tls { certificate: "a".into(), key: "b".into() }
}

fn open(listeners: Vec<Listener>) -> impl FnOnce(&mut Config) {
    move |config| {
        config.registration.enabled = true;
        config.registration.open_without_token = true;
        config.server.listeners = listeners;
    }
}

#[test]
fn the_defaults_are_fine() {
    default().validate().unwrap();
}

type Change = Box<dyn FnOnce(&mut Config)>;

fn refused(cases: Vec<(&str, Change)>) {
    for (expected, change) in cases {
        let mut config = default();
        change(&mut config);
        let error = config.validate().expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "one sentence: {error}");
        assert!(!error.contains("with space"), "a secret is shown: {error}");
    }
}

#[test]
fn listeners_and_addresses_that_make_no_sense_are_refused() {
    let cases: Vec<(&str, Change)> = vec![
        ("`server.listeners` is empty", Box::new(|c| c.server.listeners.clear())),
        (
            "`server.listeners` names 127.0.0.1:8008 twice",
            Box::new(|c| c.server.listeners.push(tcp("127.0.0.1:8008"))),
        ),
        (
            "The listener on the unix socket /run/c.sock has `tls`",
            Box::new(|c| {
                c.server.listeners = vec![Listener { tls: Some(tls()), ..unix("/run/c.sock") }];
            }),
        ),
        ("A `unix_socket` in", Box::new(|c| c.server.listeners = vec![unix("")])),
        (
            "`metrics.listener` and `server.listeners` both name 127.0.0.1:8008",
            Box::new(|c| c.metrics.listener = Some("127.0.0.1:8008".parse().unwrap())),
        ),
        (
            "`server.public_base_url` must be a plain web address",
            Box::new(|c| c.server.public_base_url = Some("https://a.b/?c=d".parse().unwrap())),
        ),
        (
            "`server.public_base_url` must be a plain web address",
            Box::new(|c| c.server.public_base_url = Some("ftp://a.b/".parse().unwrap())),
        ),
        ("`database.path` is empty", Box::new(|c| c.database.path = "".into())),
        ("`database.memory_mb` is 15", Box::new(|c| c.database.memory_mb = Some(15))),
        (
            "`database.memory_mb` is 536870912, more than 4 TiB",
            Box::new(|c| c.database.memory_mb = Some(536_870_912)),
        ),
    ];
    refused(cases);
}

#[test]
fn registration_that_makes_no_sense_is_refused() {
    let cases: Vec<(&str, Change)> = vec![
        (
            "A token in `registration.tokens` is not",
            Box::new(|c| c.registration.tokens = vec![Secret::new("with space")]),
        ),
        (
            "A token in `registration.tokens` is not",
            Box::new(|c| c.registration.tokens = vec![Secret::new("a".repeat(65))]),
        ),
        (
            "`registration.open_without_token` is set but registration is off",
            Box::new(|c| c.registration.open_without_token = true),
        ),
        (
            "`registration.require_email` needs a mail server",
            Box::new(|c| c.registration.require_email = true),
        ),
        (
            "`registration.open_without_token` would let anyone who reaches 0.0.0.0:8008",
            Box::new(open(vec![tcp("127.0.0.1:8008"), tcp("0.0.0.0:8008")])),
        ),
        (
            "`registration.open_without_token` would let anyone who reaches /run/c.sock",
            Box::new(open(vec![unix("/run/c.sock")])),
        ),
    ];
    refused(cases);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let cases: Vec<(&str, Change)> = vec![
        (
            "`rate_limits.messages` would allow nothing",
            Box::new(|c| c.rate_limits.messages.burst = 0),
        ),
        (
            "`rate_limits.joins` would allow nothing",
            Box::new(|c| c.rate_limits.joins.per_second = -1.0),
        ),
        (
            "`rate_limits.login_failed` would allow nothing",
            Box::new(|c| c.rate_limits.login_failed.per_second = f64::NAN),
        ),
        (
            "`rooms.default_version` is `5`",
            Box::new(|c| c.rooms.default_version = RoomVersionId::V5),
        ),
        (
            "`rooms.default_version` is `org.example`",
            Box::new(|c| c.rooms.default_version = "org.example".try_into().unwrap()),
        ),
        ("`limits.uia_attempts_max` is 0", Box::new(|c| c.limits.uia_attempts_max = 0)),
        (
            "`database.backup_path` must be a folder of its own",
            Box::new(|c| c.database.backup_path = Some("data/database/backups".into())),
        ),
        (
            "`database.backup_interval_hours` and `database.backup_keep` must be more",
            Box::new(|c| {
                c.database.backup_path = Some("backups".into());
                c.database.backup_keep = 0;
            }),
        ),
        (
            "`encryption.qr_login` needs `server.public_base_url`",
            Box::new(|c| c.encryption.qr_login = true),
        ),
        (
            "`encryption.waiting_messages_size_bytes_max` is less than 131072",
            Box::new(|c| c.encryption.waiting_messages_size_bytes_max = 64 * 1024),
        ),
        (
            "`encryption.backup_key_size_bytes_max` is more than 98304",
            Box::new(|c| c.encryption.backup_key_size_bytes_max = 100_000),
        ),
        (
            "`media.remote_size_bytes_max` and `media.remote_fetches_max` must be more than 0",
            Box::new(|c| c.media.remote_fetches_max = 0),
        ),
        (
            "`media.remote_cache_bytes_max` is less than `media.remote_size_bytes_max`",
            Box::new(|c| c.media.remote_cache_bytes_max = 1_000_000),
        ),
        (
            "`media.remote_disk_free_percent_min` is more than 100",
            Box::new(|c| c.media.remote_disk_free_percent_min = 101),
        ),
        (
            "`rate_limits.remote_media_bytes.burst` is less than `media.remote_size_bytes_max`",
            Box::new(|c| c.rate_limits.remote_media_bytes.burst = 50_000_000),
        ),
        ("`logging.filter` cannot be understood", Box::new(|c| c.logging.filter = "a=b=c".into())),
    ];
    refused(cases);
}

#[test]
fn sense_is_accepted() {
    let cases: Vec<Change> = vec![
        Box::new(open(vec![tcp("127.0.0.1:8008"), tcp("[::1]:8008")])),
        Box::new(open(vec![
            tcp("127.0.0.1:8008"),
            Listener { serves: Serves::Federation, ..tcp("0.0.0.0:8448") },
        ])),
        Box::new(|c| {
            open(vec![tcp("0.0.0.0:8008")])(c);
            c.registration.i_understand_that_anyone_can_register = true;
        }),
        Box::new(|c| {
            c.registration.enabled = true;
            c.registration.tokens = vec![Secret::new("a.b_c~d-9")];
        }),
        Box::new(|c| {
            c.server.listeners = vec![
                Listener { tls: Some(tls()), ..tcp("0.0.0.0:8448") },
                unix("/run/causerie.sock"),
            ];
        }),
        Box::new(|c| c.server.listeners = vec![tcp("127.0.0.1:0"), tcp("127.0.0.1:0")]),
        Box::new(|c| {
            c.server.public_base_url = Some("https://matrix.example.org".parse().unwrap());
        }),
        Box::new(|c| c.logging.filter = "info,causerie::sync=debug".into()),
        Box::new(|c| c.rooms.default_version = RoomVersionId::V6),
    ];
    for change in cases {
        let mut config = default();
        change(&mut config);
        config.validate().unwrap();
    }
}
