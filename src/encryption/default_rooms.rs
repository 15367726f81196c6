//! Which new rooms are encrypted though their client does not say so, as the operator wishes.
//!
//! A room that the client made readable for everybody stays so, and what is no chat (a space) has
//! nothing to encrypt. Bridges and bots that cannot decrypt would be shut out of a room: so none is
//! encrypted by default that one of them makes or is invited to as it is made.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mroomencryption>

use ruma::{UserId, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{json, value::to_raw_value};

use super::Encryption;
use crate::{
    config::EncryptedRooms,
    error::ApiError,
    rooms::create::{CreateRoom, Preset},
};

/// The algorithm of rooms that are encrypted by default.
const ALGORITHM: &str = "m.megolm.v1.aes-sha2";

impl Encryption {
    /// Adds to a new room that it is encrypted, where the settings want that.
    pub fn encrypt_by_default(&self, wanted: &mut CreateRoom) -> Result<(), ApiError> {
        if !is_encrypted(self.0.config.default_for, wanted) {
            return Ok(());
        }
        if wanted.invites.iter().any(|(user_id, _)| self.cannot_decrypt(user_id)) {
            return Ok(());
        }
        let content =
            to_raw_value(&json!({ "algorithm": ALGORITHM })).map_err(ApiError::internal)?;
        wanted.initial_state.push((TimelineEventType::RoomEncryption, String::new(), content));
        Ok(())
    }

    /// Whether this is a user of a bridge or a bot that does not take part in encryption.
    fn cannot_decrypt(&self, user_id: &UserId) -> bool {
        let registry = self.0.appservices.registry();
        registry.all().iter().any(|one| one.reserves_user(user_id) && !one.row.msc3202)
    }
}

/// The presets and whether each makes encrypted rooms, whatever the client wants: none can say no.
pub fn encrypted_presets(rooms: EncryptedRooms) -> [(&'static str, bool); 3] {
    [
        ("public", false),
        ("private", rooms == EncryptedRooms::Private),
        ("trusted_private", rooms != EncryptedRooms::None),
    ]
}

fn is_encrypted(rooms: EncryptedRooms, wanted: &CreateRoom) -> bool {
    let is_open = wanted.preset == Preset::Public || wanted.listed || has_public_join_rule(wanted);
    let is_space = wanted.creation_content.get("type").is_some_and(|kind| kind == "m.space");
    let given = |(kind, key, _): &(TimelineEventType, String, _)| {
        *kind == TimelineEventType::RoomEncryption && key.is_empty()
    };
    if is_open || is_space || wanted.initial_state.iter().any(given) {
        return false;
    }
    match rooms {
        EncryptedRooms::None => false,
        EncryptedRooms::Direct => is_direct(wanted),
        EncryptedRooms::Private => true,
    }
}

/// Element makes direct messages with both; other clients leave one of them out.
fn is_direct(wanted: &CreateRoom) -> bool {
    wanted.is_direct || (wanted.preset == Preset::TrustedPrivate && !wanted.invites.is_empty())
}

fn has_public_join_rule(wanted: &CreateRoom) -> bool {
    #[derive(Deserialize)]
    struct JoinRules {
        join_rule: String,
    }
    wanted.initial_state.iter().any(|(kind, key, content)| {
        let rules = serde_json::from_str::<JoinRules>(content.get());
        *kind == TimelineEventType::RoomJoinRules
            && key.is_empty()
            && rules.is_ok_and(|rules| rules.join_rule == "public")
    })
}
