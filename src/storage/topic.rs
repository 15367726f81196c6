//! Topics: what a commit touched, so that those who wait for it wake up and look.

use kv::Topic;

use crate::id::{RoomNid, UserNid};

/// The timeline (and so perhaps the state) of a room grew.
pub const ROOM_EVENTS: u8 = 1;
/// Receipts of a room changed.
pub const ROOM_RECEIPTS: u8 = 2;
/// Who types in a room changed (held in memory; the batch that carries it writes nothing).
pub const ROOM_TYPING: u8 = 3;
/// A user's membership of some room changed.
pub const USER_MEMBERSHIPS: u8 = 4;
/// A user's account data (global or of a room) changed.
pub const USER_ACCOUNT_DATA: u8 = 5;
/// A user's sessions changed: tokens that were known may be gone.
pub const USER_SESSIONS: u8 = 6;
/// A user's devices, the messages that wait for them or the counts of their keys changed.
pub const USER_DEVICES: u8 = 7;
/// A user's pushers changed.
pub const PUSHERS: u8 = 9;

/// The presence of a member of a room changed (held in memory).
pub const ROOM_PRESENCE: u8 = 8;
/// The threads that a user follows changed.
pub const USER_THREAD_SUBSCRIPTIONS: u8 = 10;
/// Something happened in a room that moves it up in lists of rooms.
pub const ROOM_BUMP: u8 = 15;

/// The devices or cross-signing keys of a member of a room changed.
pub const ROOM_DEVICE_LISTS: u8 = 16;
/// Somebody's membership of a room changed.
pub const ROOM_MEMBERS: u8 = 17;

/// Something waits for application services that is about devices of their users; a topic of the
/// whole server, with the number 0.
pub const APPSERVICE_DEVICES: u8 = 18;

/// A delayed event was handed in or changed; a topic of the whole server, with the number 0.
pub const DELAYED_EVENTS: u8 = 14;

/// The aliases of a room changed, and so perhaps which application services are interested in it.
pub const ROOM_ALIASES: u8 = 11;

/// A file that was promised is there.
pub const MEDIA: u8 = 12;

/// A topic of a room.
pub const fn room(space: u8, room: RoomNid) -> Topic {
    Topic { space, id: room.0 }
}

/// A topic of a user.
pub const fn user(space: u8, user: UserNid) -> Topic {
    Topic { space, id: user.0 }
}
