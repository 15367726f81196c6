//! The rooms that application services list under the networks they bridge to.
//!
//! Such a room is shown in the directory to those who ask for that network
//! (`third_party_instance_id`) or for all of them. The network's name for clients is
//! [`instance_id`].
//!
//! <https://spec.matrix.org/v1.19/application-service-api/#published-room-directories>

use std::ops::ControlFlow;

use kv::{Batch, Direction, Durability, KeyRange, Reader, Store};

use super::{Appservices, registration::ID_BYTES_MAX};
use crate::{
    error::ApiError,
    id::RoomNid,
    storage::schema::appservices::{NETWORK_ROOMS, NetworkRoomKey},
};

/// What clients call a network of an application service.
pub fn instance_id(appservice: &str, network: &str) -> String {
    format!("{appservice}|{network}")
}

impl Appservices {
    /// Lists a room under a network of an application service, or takes it off.
    ///
    /// # Errors
    /// 400 for a network whose name is empty or too long.
    pub async fn list_room(
        &self,
        (appservice, network): (&str, &str),
        room: RoomNid,
        listed: bool,
    ) -> Result<(), ApiError> {
        if network.is_empty() || network.len() > ID_BYTES_MAX {
            return Err(ApiError::invalid_param("The network's id is empty or too long"));
        }
        let (appservice, network) = (appservice.to_owned(), network.to_owned());
        let key = NetworkRoomKey { appservice, network, room };
        let mut batch = Batch::new();
        if listed {
            batch.put(&NETWORK_ROOMS, &key, &());
        } else {
            batch.delete(&NETWORK_ROOMS, &key);
        }
        self.0.store.commit(batch, Durability::Synced).await?;
        Ok(())
    }
}

/// The rooms listed under a network, named as clients name it; `None`: under any.
pub fn network_rooms(
    reader: &Reader<'_>,
    instance: Option<&str>,
) -> Result<Vec<RoomNid>, kv::Error> {
    let range = match instance {
        None => NETWORK_ROOMS.prefix(&()),
        // No id has the separator in it, a network may.
        Some(instance) => match instance.split_once('|') {
            None => return Ok(Vec::new()),
            Some((appservice, network)) => {
                NETWORK_ROOMS.prefix(&(appservice.to_owned(), network.to_owned()))
            }
        },
    };
    rooms_in(reader, &range)
}

fn rooms_in(reader: &Reader<'_>, range: &KeyRange) -> Result<Vec<RoomNid>, kv::Error> {
    let mut rooms = Vec::new();
    reader.for_each(&NETWORK_ROOMS, range, Direction::Forward, |key, ()| {
        rooms.push(key.room);
        ControlFlow::Continue(())
    })?;
    rooms.sort_unstable();
    rooms.dedup();
    Ok(rooms)
}

/// Takes off all rooms of an application service, within a batch.
pub(super) fn forget(batch: &mut Batch, appservice: &str) {
    batch.delete_range(&NETWORK_ROOMS, NETWORK_ROOMS.prefix(&appservice.to_owned()));
}

/// The store whose directory this is.
impl Appservices {
    /// [`network_rooms`] outside of a read step.
    pub async fn rooms_of_network(&self, instance: Option<&str>) -> Result<Vec<RoomNid>, ApiError> {
        let store: &Store = &self.0.store;
        let instance = instance.map(str::to_owned);
        let read = store.read(move |reader| network_rooms(reader, instance.as_deref()));
        Ok(read.await?)
    }
}
