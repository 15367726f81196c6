//! Tables of end-to-end encryption: keys, device lists, messages to devices, backups. Owner:
//! `encryption`. Tags 160 and up of family `us`, 64 and up of family `gl`.

use kv::{Json, Position, Table, key_structs};

use super::{GL, US, users::DeviceKey};
use crate::storage::rows::encryption::{
    AppserviceMessageRow, BackupKeyRow, BackupVersionRow, DehydratedDeviceRow, FallbackKeyRow,
    OneTimeKeyIdRow, OneTimeKeyRow,
};

key_structs! {
    /// A one-time key that waits to be claimed, in the order in which the keys were uploaded.
    pub struct OneTimeKeyKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
        /// The algorithm.
        algorithm: String,
        /// When it was uploaded.
        position: Position,
        /// Its place among those that were uploaded with it.
        index: u16,
    }

    /// A one-time key by its id.
    pub struct OneTimeKeyIdKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
        /// The algorithm.
        algorithm: String,
        /// The id, without the algorithm.
        key_id: String,
    }

    /// The keys of one algorithm of a device.
    pub struct DeviceAlgorithmKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
        /// The algorithm.
        algorithm: String,
    }

    /// A cross-signing key.
    pub struct CrossSigningKeyKey {
        /// The user id.
        user_id: String,
        /// Which of the user's keys: 1 master, 2 self-signing, 3 user-signing.
        usage: u8,
    }

    /// A signature on a device or a cross-signing key, besides those that it was uploaded with.
    pub struct SignatureKey {
        /// The user whose key is signed.
        user_id: String,
        /// The user who signed.
        signer: String,
        /// What is signed: a device id, or the public part of a cross-signing key.
        target: String,
        /// The id of the signing key, with its algorithm.
        key_id: String,
    }

    /// A user whose master key somebody signed.
    pub struct OwnSignatureChangeKey {
        /// The user who signed.
        signer: String,
        /// The user whose key it is.
        user_id: String,
    }

    /// A user by the time at which something about their devices or cross-signing keys last changed.
    pub struct DeviceListChangeKey {
        /// When.
        position: Position,
        /// The user id.
        user_id: String,
    }

    /// A message that waits for a device.
    pub struct ToDeviceKey {
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
        /// When it was sent.
        position: Position,
    }

    /// A transaction by which a client sent messages to devices, until it is too old to come again.
    pub struct ToDeviceTransactionKey {
        /// The day on which it came, counted from 1970.
        day: u32,
        /// The sender's user id.
        user_id: String,
        /// The sender's device id.
        device_id: String,
        /// The event type, which is a part of the path.
        event_type: String,
        /// The client's id.
        transaction_id: String,
    }

    /// Something about a device that an application service is to be told.
    pub struct AppserviceDeviceKey {
        /// The application service.
        appservice: String,
        /// When it was committed.
        position: Position,
        /// The user id.
        user_id: String,
        /// The device id.
        device_id: String,
    }

    /// A version of a user's backup of keys.
    pub struct BackupVersionKey {
        /// The user id.
        user_id: String,
        /// The version, from 1.
        version: u64,
    }

    /// A key in a backup.
    pub struct BackupKeyKey {
        /// The user id.
        user_id: String,
        /// The version.
        version: u64,
        /// The room of which it is a key; a client's word.
        room_id: String,
        /// The session.
        session_id: String,
    }
}

/// The identity keys of devices as JSON, as they were uploaded, without `unsigned`.
pub const DEVICE_KEYS: Table<DeviceKey, Vec<u8>> = Table::new("device_keys", US, 160, "encryption");
/// One-time keys that wait to be claimed.
pub const ONE_TIME_KEYS: Table<OneTimeKeyKey, OneTimeKeyRow> =
    Table::new("one_time_keys", US, 161, "encryption");
/// The ids of one-time keys, of those that wait and of those that were handed out: a key that comes
/// again is not handed out again.
pub const ONE_TIME_KEY_IDS: Table<OneTimeKeyIdKey, OneTimeKeyIdRow> =
    Table::new("one_time_key_ids", US, 162, "encryption");
/// How many of these ids are remembered for each device; there is a row for each that ever uploaded a
/// one-time key.
pub const ONE_TIME_KEY_ID_COUNTS: Table<DeviceKey, u32> =
    Table::new("one_time_key_id_counts", US, 180, "encryption");
/// How many one-time keys wait. A counter, so that claims do not stand in each other's way.
pub const ONE_TIME_KEY_COUNTS: Table<DeviceAlgorithmKey, i64> =
    Table::new("one_time_key_counts", US, 163, "encryption");
/// The keys that are handed out when no one-time key is left.
pub const FALLBACK_KEYS: Table<DeviceAlgorithmKey, FallbackKeyRow> =
    Table::new("fallback_keys", US, 164, "encryption");
/// When the counts of a device's keys, or whether its fallback keys are used, last changed.
pub const KEY_COUNT_CHANGES: Table<DeviceKey, Position> =
    Table::new("key_count_changes", US, 165, "encryption");
/// Cross-signing keys as JSON, as they were uploaded.
pub const CROSS_SIGNING_KEYS: Table<CrossSigningKeyKey, Vec<u8>> =
    Table::new("cross_signing_keys", US, 166, "encryption");
/// Signatures that were uploaded on their own.
pub const SIGNATURES: Table<SignatureKey, Vec<u8>> =
    Table::new("signatures", US, 167, "encryption");
/// When a user last signed the master key of somebody else, which only their own devices learn.
pub const OWN_SIGNATURE_CHANGES: Table<OwnSignatureChangeKey, Position> =
    Table::new("own_signature_changes", US, 185, "encryption");
/// When each user last signed the master key of anybody else.
pub const LAST_OWN_SIGNATURES: Table<String, Position> =
    Table::new("last_own_signatures", US, 186, "encryption");
/// When something about each user's devices or cross-signing keys last changed.
pub const DEVICE_LISTS: Table<String, Position> = Table::new("device_lists", US, 168, "encryption");
/// The same in the order of the changes: one row for each user, so that it does not grow for ever.
pub const DEVICE_LIST_CHANGES: Table<DeviceListChangeKey, ()> =
    Table::new("device_list_changes", US, 169, "encryption");
/// Messages that wait for devices, as JSON events.
pub const TO_DEVICE: Table<ToDeviceKey, Vec<u8>> = Table::new("to_device", US, 170, "encryption");
/// How many messages wait for each device.
pub const TO_DEVICE_COUNTS: Table<DeviceKey, i64> =
    Table::new("to_device_counts", US, 171, "encryption");
/// How many bytes these messages have.
pub const TO_DEVICE_SIZES: Table<DeviceKey, i64> =
    Table::new("to_device_sizes", US, 176, "encryption");
/// The transactions of the last days: the same again sends nothing.
pub const TO_DEVICE_TRANSACTIONS: Table<ToDeviceTransactionKey, ()> =
    Table::new("to_device_transactions", US, 172, "encryption");
/// Messages for devices that wait for application services, in the order in which they were sent.
pub const APPSERVICE_TO_DEVICE: Table<AppserviceDeviceKey, AppserviceMessageRow> =
    Table::new("appservice_to_device", US, 210, "encryption");
/// Devices of whose counts of keys application services are to be told.
pub const APPSERVICE_KEY_COUNTS: Table<AppserviceDeviceKey, ()> =
    Table::new("appservice_key_counts", US, 211, "encryption");
/// The versions of backups. The last one stays when it is deleted, until there is a later one:
/// numbers are not given twice.
pub const BACKUP_VERSIONS: Table<BackupVersionKey, BackupVersionRow> =
    Table::new("backup_versions", US, 173, "encryption");
/// The keys in backups.
pub const BACKUP_KEYS: Table<BackupKeyKey, BackupKeyRow> =
    Table::new("backup_keys", US, 174, "encryption");
/// The device of each user that keeps keys while no real one is there (MSC3814).
pub const DEHYDRATED_DEVICES: Table<String, Json<DehydratedDeviceRow>> =
    Table::new("dehydrated_devices", US, 175, "encryption");

/// The epoch of the database in which the keys were last in use, under the key 0: after a restore it
/// is another one, and no one-time key of before may be handed out.
pub const ENCRYPTION_EPOCH: Table<u8, Json<u64>> =
    Table::new("encryption_epoch", GL, 64, "encryption");
