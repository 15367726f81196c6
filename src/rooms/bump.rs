//! Which events move a room up in lists of rooms: those that people would call news.
//!
//! The commit notes the position of the newest one; sliding sync orders rooms by it.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4186>

use super::Pdu;

/// The types of such events.
const TYPES: [&str; 10] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
    "org.matrix.msc3381.v2.poll.start",
];

/// Whether an event is of such a type.
pub(super) fn bumps(pdu: &Pdu) -> bool {
    TYPES.contains(&pdu.event_type())
}
