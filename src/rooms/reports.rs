//! What users report as inappropriate: stored for those who administer the server.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>

use kv::{Batch, Direction, Durability, Json, Position};
use ruma::{EventId, OwnedUserId, RoomId, UserId};

use super::{Room, Rooms, history::visible_event, visibility::Viewer};
use crate::{
    error::ApiError,
    storage::{
        rows::reports::{ReportRow, ReportSubject},
        schema::{reports::REPORTS, users::ACCOUNTS},
    },
};

/// How long a reason may be, in bytes.
const REASON_BYTES_MAX: usize = 2000;
/// How many reports are listed at once.
const PAGE_MAX: usize = 100;

/// A report with its place in the list, which also names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its place.
    pub position: Position,
    /// The report.
    pub row: ReportRow,
}

impl Rooms {
    /// Reports a room. Nothing tells whether there is such a room; only one that there is is stored.
    ///
    /// # Errors
    /// 400 when the reason is too long.
    pub async fn report_room(
        &self,
        reporter: OwnedUserId,
        room_id: &RoomId,
        reason: String,
    ) -> Result<(), ApiError> {
        check_reason(&reason)?;
        match self.room(room_id).await? {
            Some(room) => {
                self.store_report(reporter, reason, ReportSubject::Room(room.id.clone())).await
            }
            None => Ok(()),
        }
    }

    /// Reports an event of a room that the reporter has joined.
    ///
    /// # Errors
    /// 404 when there is no such event, or the reporter may not see it or is not in the room.
    pub async fn report_event(
        &self,
        reporter: OwnedUserId,
        (room_id, event_id): (&RoomId, &EventId),
        reason: String,
    ) -> Result<(), ApiError> {
        check_reason(&reason)?;
        let not_found =
            || ApiError::not_found("The event was not found or you are not joined to the room");
        let room = self.room(room_id).await?.ok_or_else(not_found)?;
        let sender = self.reported_sender(&room, &reporter, event_id).await?;
        let subject = ReportSubject::Event {
            room_id: room.id.clone(),
            event_id: event_id.to_owned(),
            sender: sender.ok_or_else(not_found)?,
        };
        self.store_report(reporter, reason, subject).await
    }

    /// Reports a user. Nothing tells whether there is such a user; one of this server that there is
    /// not is not stored.
    ///
    /// # Errors
    /// 400 when the reason is too long.
    pub async fn report_user(
        &self,
        reporter: OwnedUserId,
        user_id: OwnedUserId,
        reason: String,
    ) -> Result<(), ApiError> {
        check_reason(&reason)?;
        let is_known = user_id.server_name() != self.server_name() || {
            let key = user_id.to_string();
            self.store().read(move |reader| reader.contains(&ACCOUNTS, &key)).await?
        };
        if !is_known {
            return Ok(());
        }
        self.store_report(reporter, reason, ReportSubject::User(user_id)).await
    }

    /// Reports, newest first; those before a place of an earlier page.
    pub async fn reports(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Report>, ApiError> {
        let limit = limit.min(PAGE_MAX);
        let rows = self
            .store()
            .read(move |reader| {
                let range = match &before {
                    Some(before) => REPORTS.range(
                        std::ops::Bound::Unbounded::<&Position>,
                        std::ops::Bound::Excluded(before),
                    ),
                    None => REPORTS.prefix(&()),
                };
                reader.scan(&REPORTS, &range, Direction::Backward, limit)
            })
            .await?;
        Ok(rows.into_iter().map(|(position, Json(row))| Report { position, row }).collect())
    }

    async fn reported_sender(
        &self,
        room: &Room,
        reporter: &UserId,
        event_id: &EventId,
    ) -> Result<Option<OwnedUserId>, ApiError> {
        let (room, reporter, event_id) = (room.clone(), reporter.to_owned(), event_id.to_owned());
        self.read(move |rooms, reader| {
            let mut viewer = Viewer::new(rooms, reader, &room, &reporter)?;
            if !viewer.is_joined() {
                return Ok(None);
            }
            match visible_event(reader, &mut viewer, &event_id) {
                Ok(event) => Ok(Some(event.pdu.sender().to_owned())),
                Err(error) if error.status.is_server_error() => Err(error),
                Err(_) => Ok(None),
            }
        })
        .await
    }

    async fn store_report(
        &self,
        reporter: OwnedUserId,
        reason: String,
        subject: ReportSubject,
    ) -> Result<(), ApiError> {
        let ts = self.clock().now().get().into();
        let row = ReportRow { reporter, ts, reason, subject };
        let mut batch = Batch::new();
        batch.put(&REPORTS, &Position::pending(0), &Json(row));
        self.store().commit(batch, Durability::Synced).await?;
        Ok(())
    }
}

fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(ApiError::invalid_param("A reason has at most 2000 bytes"));
    }
    Ok(())
}
