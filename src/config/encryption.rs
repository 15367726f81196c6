//! The section `[encryption]`: end-to-end encryption.

use serde::{Deserialize, Serialize};

/// End-to-end encryption. Clients encrypt; the server keeps their public keys and passes on what
/// they send to each other's devices. Sizes are in bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncryptionConfig {
    /// Which new rooms are encrypted though the client that makes them does not say so: `"none"`;
    /// `"direct"`: direct messages; `"private"`: these and private rooms. Spaces never are, nor
    /// rooms that bridges and bots make or are invited to as they are made, unless they can read
    /// what is encrypted. Element is told too. With `"none"` clients do as they like: Element
    /// encrypts private rooms, unless `server.well_known_client` has `"io.element.e2ee" = { default
    /// = false }`.
    pub default_for: EncryptedRooms,

    /// Whether devices may meet here for a login by QR code. It only helps where clients log in by
    /// OAuth, which this server does not offer yet. Needs `server.public_base_url`.
    pub qr_login: bool,

    /// Whether people see the names of the devices of others here. Of one's own, they always do.
    pub device_names_visible: bool,

    /// Whether the keys of a device are refused that the device did not sign.
    pub signed_device_keys_only: bool,

    /// The one-time keys of one algorithm that wait for a device.
    pub one_time_keys_max: usize,

    /// The identity keys of a device.
    pub device_keys_size_bytes_max: usize,

    /// The messages that wait for a device which does not fetch them. What comes beyond is refused.
    pub waiting_messages_max: usize,

    /// The size of these messages together, of one device.
    pub waiting_messages_size_bytes_max: usize,

    /// The keys in a user's backup.
    pub backup_keys_max: u64,

    /// The most that the keys in all backups of a user come to.
    pub backup_size_bytes_max: u64,

    /// One key in a backup.
    pub backup_key_size_bytes_max: usize,
}

/// Which new rooms are encrypted by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EncryptedRooms {
    /// Only those whose maker says so.
    #[default]
    None,
    /// Direct messages.
    Direct,
    /// Direct messages and private rooms.
    Private,
}

impl Default for EncryptionConfig {
    fn default() -> Self {
        Self {
            default_for: EncryptedRooms::None,
            qr_login: false,
            device_names_visible: true,
            signed_device_keys_only: true,
            one_time_keys_max: 256,
            device_keys_size_bytes_max: 32 * 1024,
            waiting_messages_max: 10_000,
            waiting_messages_size_bytes_max: 64 * 1024 * 1024,
            backup_keys_max: 500_000,
            backup_size_bytes_max: 1024 * 1024 * 1024,
            backup_key_size_bytes_max: 64 * 1024,
        }
    }
}
