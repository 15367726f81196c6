//! The section `[rooms]`: how rooms are made.

use ruma::RoomVersionId;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::load::text;

/// How rooms are made.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomsConfig {
    /// The version of new rooms when the client asks for none: `"6"` to `"12"`.
    #[serde(deserialize_with = "room_version")]
    pub default_version: RoomVersionId,

    /// Whether the list of published rooms is shown to anybody, also without an account here.
    pub directory_without_login: bool,
}

impl Default for RoomsConfig {
    fn default() -> Self {
        Self { default_version: RoomVersionId::V12, directory_without_login: false }
    }
}

fn room_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RoomVersionId, D::Error> {
    text(deserializer)?.try_into().map_err(D::Error::custom)
}
