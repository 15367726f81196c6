//! All tables, by column family and owner. The tag tells the tables of one family apart; a tag is
//! never used again for something else.

use kv::ColumnFamily;

pub mod delayed_events;
pub mod directory;
pub mod accounts;
pub mod appservices;
pub mod encryption;
pub mod ephemeral;
pub mod reports;
pub mod media;
pub mod push;
pub mod pushers;
pub mod rooms;
pub mod search;
pub mod server;
pub mod users;

const fn family(name: &'static str, index: u8) -> ColumnFamily {
    ColumnFamily { name, index, block_size_bytes: 8192, dense: false, point_lookups: false }
}

/// Events as canonical JSON.
pub const EV: ColumnFamily =
    ColumnFamily { block_size_bytes: 16384, dense: true, ..family("ev", 1) };
/// Event records.
pub const EM: ColumnFamily = family("em", 2);
/// Event ids to numbers.
pub const EI: ColumnFamily = ColumnFamily { point_lookups: true, ..family("ei", 3) };
/// Timelines.
pub const TL: ColumnFamily = family("tl", 4);
/// State by key and version.
pub const SV: ColumnFamily = family("sv", 5);
/// State by version: the log of changes; branches and overlays.
pub const SL: ColumnFamily = family("sl", 6);
/// Current state and members.
pub const CS: ColumnFamily = family("cs", 7);
/// Rooms: their heads, aliases, the directory.
pub const RM: ColumnFamily = family("rm", 8);
/// Users and all that is theirs.
pub const US: ColumnFamily = family("us", 9);
/// Federation: keys of other servers, queues.
pub const FD: ColumnFamily = family("fd", 10);
/// Indexes: relations, threads, search.
pub const IX: ColumnFamily = family("ix", 11);
/// The server itself: identity, signing keys, migrations. Family 0 also keeps the store's own rows.
pub const GL: ColumnFamily = family("gl", 0);

/// Every column family, in the order of their index.
pub const FAMILIES: [ColumnFamily; 12] = [GL, EV, EM, EI, TL, SV, SL, CS, RM, US, FD, IX];
