//! Tables of what proves or belongs to an account beside its sessions. Owner: `users`. Tags 17 to
//! 31 of family `gl`, 75 to 84 of family `us`.

use kv::{Json, Table, key_structs};

use super::{GL, US};
use crate::{
    id::RoomNid,
    storage::rows::accounts::{
        EmailSessionRow, ErasureRow, LoginTokenRow, OwnerRow, ThirdPartyIdRow,
    },
};

key_structs! {
    /// Something that ends at a known time; what has ended comes first.
    pub struct ExpiringKey {
        /// When, in milliseconds.
        expires_ts: u64,
        /// The hash that names it.
        hash: [u8; 32],
    }

    /// An address of a third party that belongs to a user.
    pub struct ThirdPartyIdKey {
        /// The user id.
        user_id: String,
        /// The medium: `email`.
        medium: String,
        /// The address, in lower case.
        address: String,
    }

    /// An address of a third party.
    pub struct ThirdPartyOwnerKey {
        /// The medium: `email`.
        medium: String,
        /// The address, in lower case.
        address: String,
    }

    /// A guest who joined a room.
    pub struct GuestMemberKey {
        /// The room.
        room: RoomNid,
        /// The user id.
        user_id: String,
    }
}

/// Tokens that log in once.
pub const LOGIN_TOKENS: Table<ExpiringKey, Json<LoginTokenRow>> =
    Table::new("login_tokens", GL, 17, "users");
/// Tokens that tell third parties who a user is.
pub const OPENID_TOKENS: Table<ExpiringKey, Json<OwnerRow>> =
    Table::new("openid_tokens", GL, 18, "users");
/// Proofs of e-mail addresses, by the hash of purpose and client secret.
pub const EMAIL_SESSIONS: Table<[u8; 32], Json<EmailSessionRow>> =
    Table::new("email_sessions", GL, 19, "users");
/// When each of them ends.
pub const EMAIL_SESSION_ENDS: Table<ExpiringKey, ()> =
    Table::new("email_session_ends", GL, 20, "users");
/// Whose an address of a third party is.
pub const THIRD_PARTY_OWNERS: Table<ThirdPartyOwnerKey, Json<OwnerRow>> =
    Table::new("third_party_owners", GL, 21, "users");
/// The addresses of third parties of each user.
pub const THIRD_PARTY_IDS: Table<ThirdPartyIdKey, Json<ThirdPartyIdRow>> =
    Table::new("third_party_ids", US, 75, "users");
/// Users who are no more and still have to leave their rooms.
pub const DEPARTURES: Table<String, ()> = Table::new("departures", US, 76, "users");
/// Guests who joined rooms, so that they can be shown out.
pub const GUEST_MEMBERS: Table<GuestMemberKey, ()> = Table::new("guest_members", US, 77, "users");
/// Users whose events are shown without content to whoever was not there.
pub const ERASED_USERS: Table<String, ErasureRow> = Table::new("erased_users", US, 78, "users");
