//! Interned numbers: what stands for long identifiers in keys and records.
//!
//! A [`RoomNid`], a [`UserNid`] and a [`StateKeyNid`] are keyed hashes (SipHash-2-4 with a secret
//! of the database), so that nobody outside can make two collide; an [`EventNid`] counts the
//! events of one room densely from 1.

use kv::{DecodeError, Key, KeyReader, KeyWriter};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $type);

        impl Key for $name {
            fn encode(&self, writer: &mut KeyWriter) {
                self.0.encode(writer);
            }

            fn decode(reader: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
                Key::decode(reader).map(Self)
            }
        }
    )*};
}

numbers! {
    /// A room: keyed hash of its id.
    RoomNid(u64);
    /// A user: keyed hash of the id.
    UserNid(u64);
    /// A (type, state key) pair: keyed hash of both.
    StateKeyNid(u64);
    /// An event's number within its room, dense from 1.
    EventNid(u32);
    /// A branch of a room's state; 0 is the trunk. The highest bit marks an overlay.
    BranchNid(u32);
}

/// The secret that ids are hashed with; made once, kept in the database.
#[derive(Clone, Copy)]
pub struct Interner {
    key: [u8; 16],
}

impl Interner {
    /// Uses this secret.
    pub const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The number of a room.
    pub fn room(&self, room_id: &ruma::RoomId) -> RoomNid {
        RoomNid(self.hash(b'r', room_id.as_bytes(), b""))
    }

    /// The number of a user.
    pub fn user(&self, user_id: &ruma::UserId) -> UserNid {
        UserNid(self.hash(b'u', user_id.as_bytes(), b""))
    }

    /// The number of a (type, state key) pair.
    pub fn state_key(&self, event_type: &str, state_key: &str) -> StateKeyNid {
        StateKeyNid(self.hash(b's', event_type.as_bytes(), state_key.as_bytes()))
    }

    /// The number of an event type, for filters that read no event.
    pub fn event_type(&self, event_type: &str) -> u64 {
        self.hash(b't', event_type.as_bytes(), b"")
    }

    /// The number of a term of the full-text index.
    pub fn term(&self, term: &str) -> u64 {
        self.hash(b'w', term.as_bytes(), b"")
    }

    fn hash(&self, kind: u8, first: &[u8], second: &[u8]) -> u64 {
        use std::hash::Hasher;
        let mut hasher = siphasher::sip::SipHasher24::new_with_key(&self.key);
        hasher.write(&[kind]);
        hasher.write(first);
        hasher.write(&[0]);
        hasher.write(second);
        hasher.finish()
    }
}

impl std::fmt::Debug for Interner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Interner")
    }
}
