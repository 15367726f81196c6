//! What is left after the end of an account: presence goes, and all rooms are left, in the
//! background.
//!
//! The row that says so is written with the deactivation and goes when every room is left; what was
//! interrupted goes on when the server starts. A room that refuses is tried again then.

use kv::{Batch, Direction, Durability};
use ruma::OwnedUserId;

use super::{Users, in_rooms};
use crate::{
    ephemeral::Presence, error::ApiError, rooms::Rooms, storage::schema::accounts::DEPARTURES,
    tasks::Stop,
};

/// How many users' departures are looked up at once.
const USERS_AT_ONCE: usize = 100;

/// Takes users who are no more out of their rooms until the server stops.
pub async fn run(users: Users, (rooms, presence): (Rooms, Presence), mut stop: Stop) {
    loop {
        let round = async {
            if let Err(error) = leave_rooms(&users, &rooms, &presence).await {
                tracing::error!(%error, "users who are no more could not leave their rooms");
            }
            users.0.departures.notified().await;
        };
        tokio::select! {
            () = round => {}
            () = stop.requested() => return,
        }
    }
}

async fn leave_rooms(users: &Users, rooms: &Rooms, presence: &Presence) -> Result<(), ApiError> {
    let store = &users.0.store;
    let mut after: Option<String> = None;
    loop {
        let start = match &after {
            Some(user) => std::ops::Bound::Excluded(user),
            None => std::ops::Bound::Unbounded,
        };
        let range = DEPARTURES.range(start, std::ops::Bound::Unbounded::<&()>);
        let rows = store.read(move |reader| {
            reader.scan(&DEPARTURES, &range, Direction::Forward, USERS_AT_ONCE)
        });
        let rows = rows.await?;
        let Some((last, ())) = rows.last() else { return Ok(()) };
        after = Some(last.clone());
        for (user, ()) in rows {
            let user_id: OwnedUserId = user.clone().try_into().map_err(ApiError::internal)?;
            // Before the rooms are left: those in them are told that the user is offline.
            presence.forget(&user_id).await?;
            if in_rooms::leave_all(rooms, &user_id).await? {
                let mut batch = Batch::new();
                batch.delete(&DEPARTURES, &user);
                store.commit(batch, Durability::Buffered).await?;
            }
        }
    }
}
