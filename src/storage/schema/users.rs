//! Tables of accounts and all that is a user's. Owner: `users`. Tags 64 and up of family `us`, 16
//! and up of family `gl`.

use kv::{Json, Position, Table, key_structs};

use super::{GL, US};
use crate::{
    id::RoomNid,
    storage::rows::users::{
        AccessTokenRow, AccountDataRow, AccountRow, DeviceRow, DeviceSeenRow, ProfileRow,
        RefreshFamilyRow, RegistrationTokenRow, ThreadSubscriptionRow,
    },
};

key_structs! {
    /// A device of a user.
    pub struct DeviceKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
    }

    /// A token of a device, so that all of them are found when the device goes.
    pub struct DeviceTokenKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
        /// 0: an access token; 1: a family of refresh tokens.
        kind: u8,
        /// The hash that is its key in its own table.
        hash: [u8; 32],
    }

    /// One type of account data, or a part of it when it is larger than a value may be.
    pub struct AccountDataKey {
        /// The user id.
        user_id: String,
        /// The room; number 0 for global data.
        room: RoomNid,
        /// The type.
        kind: String,
        /// The part, from 0.
        part: u16,
    }

    /// When one type of account data was last written.
    pub struct AccountDataChangeKey {
        /// The user id.
        user_id: String,
        /// When.
        position: Position,
        /// The room; number 0 for global data.
        room: RoomNid,
        /// The type.
        kind: String,
    }

    /// A thread that a user follows, or did.
    pub struct ThreadSubscriptionKey {
        /// The user id.
        user_id: String,
        /// The room.
        room: RoomNid,
        /// The id of the thread's root.
        thread: String,
    }

    /// When a user last began or ended to follow a thread.
    pub struct ThreadSubscriptionChangeKey {
        /// The user id.
        user_id: String,
        /// When.
        position: Position,
        /// The room.
        room: RoomNid,
        /// The id of the thread's root.
        thread: String,
    }

    /// A stored filter.
    pub struct FilterKey {
        /// The user id.
        user_id: String,
        /// The filter's number.
        filter: u32,
    }

    /// A stored filter by its content.
    pub struct FilterHashKey {
        /// The user id.
        user_id: String,
        /// The hash of its JSON.
        hash: [u8; 32],
    }
}

/// Accounts by user id. A row is never removed: a name is not given twice.
pub const ACCOUNTS: Table<String, Json<AccountRow>> = Table::new("accounts", US, 64, "users");
/// Profiles by user id.
pub const PROFILES: Table<String, Json<ProfileRow>> = Table::new("profiles", US, 65, "users");
/// Devices. Whatever changes a device's tokens rewrites its row, so that two changes conflict.
pub const DEVICES: Table<DeviceKey, Json<DeviceRow>> = Table::new("devices", US, 66, "users");
/// When each device was last seen.
pub const DEVICES_SEEN: Table<DeviceKey, Json<DeviceSeenRow>> =
    Table::new("devices_seen", US, 67, "users");
/// The tokens of each device.
pub const DEVICE_TOKENS: Table<DeviceTokenKey, ()> = Table::new("device_tokens", US, 68, "users");
/// Sessions by the hash of their access token.
pub const ACCESS_TOKENS: Table<[u8; 32], Json<AccessTokenRow>> =
    Table::new("access_tokens", US, 69, "users");
/// Families of refresh tokens by the hash of what all tokens of the family share.
pub const REFRESH_FAMILIES: Table<[u8; 32], Json<RefreshFamilyRow>> =
    Table::new("refresh_families", US, 70, "users");
/// Account data, global and of rooms.
pub const ACCOUNT_DATA: Table<AccountDataKey, AccountDataRow> =
    Table::new("account_data", US, 71, "users");
/// Account data in the order of its last write.
pub const ACCOUNT_DATA_CHANGES: Table<AccountDataChangeKey, ()> =
    Table::new("account_data_changes", US, 72, "users");
/// Stored filters as JSON.
pub const FILTERS: Table<FilterKey, Vec<u8>> = Table::new("filters", US, 73, "users");
/// Stored filters by content.
pub const FILTERS_BY_HASH: Table<FilterHashKey, u32> =
    Table::new("filters_by_hash", US, 74, "users");
/// Registration tokens that an administrator made; those of the configuration are not here.
pub const REGISTRATION_TOKENS: Table<String, Json<RegistrationTokenRow>> =
    Table::new("registration_tokens", GL, 16, "users");
/// The threads that users follow, or did.
pub const THREAD_SUBSCRIPTIONS: Table<ThreadSubscriptionKey, ThreadSubscriptionRow> =
    Table::new("thread_subscriptions", US, 113, "users");
/// The same in the order of their last change.
pub const THREAD_SUBSCRIPTION_CHANGES: Table<ThreadSubscriptionChangeKey, ()> =
    Table::new("thread_subscription_changes", US, 114, "users");
