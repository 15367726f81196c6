//! Where two devices meet for a login by QR code: a text in memory that either of them replaces, under
//! an id that only they know (MSC4108 and MSC4388).
//!
//! What they write is encrypted and kept for minutes. Whoever writes must have seen what is there, so
//! that nothing is overwritten unseen.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4108>
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4388>

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use ruma::MilliSecondsSinceUnixEpoch;

use super::Encryption;
use crate::{error::ApiError, time::Clock};

/// The longest text.
pub const DATA_BYTES_MAX: usize = 4_096;
/// How long a rendezvous may last.
const LIFE_MAX: Duration = Duration::from_mins(5);
/// How long it is kept though nobody reads or writes. Devices that wait for each other ask all the
/// time.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// How many there may be.
const COUNT_MAX: usize = 1_000;
/// The random bytes of an id.
const ID_BYTES: usize = 18;

/// All that take place.
#[derive(Debug)]
pub struct Rendezvous {
    clock: Clock,
    meetings: Mutex<HashMap<String, Meeting>>,
}

#[derive(Debug)]
struct Meeting {
    data: String,
    /// Counts the texts.
    revision: u64,
    made: Duration,
    used: Duration,
    expires_ts: MilliSecondsSinceUnixEpoch,
    modified_ts: MilliSecondsSinceUnixEpoch,
}

/// A rendezvous as it is now.
#[derive(Clone, Debug)]
pub struct Met {
    /// The text.
    pub data: String,
    /// Tells the texts of a rendezvous apart.
    pub revision: String,
    /// How long it may last from now on.
    pub expires_in: Duration,
    /// When that is.
    pub expires_ts: MilliSecondsSinceUnixEpoch,
    /// When the text was written.
    pub modified_ts: MilliSecondsSinceUnixEpoch,
}

/// What became of a new text.
#[derive(Clone, Debug)]
pub enum Written {
    /// It is there.
    Done(Met),
    /// There is another one than the writer has seen.
    Unseen(Met),
}

impl Encryption {
    /// Logins by QR code.
    pub fn rendezvous(&self) -> &Rendezvous {
        &self.0.rendezvous
    }
}

impl Rendezvous {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, meetings: Mutex::default() }
    }

    /// Makes a rendezvous; gives its id.
    ///
    /// # Errors
    /// 413 `M_TOO_LARGE`, 429 `M_LIMIT_EXCEEDED` when there are too many.
    pub fn create(&self, data: String) -> Result<(String, Met), ApiError> {
        check(&data)?;
        let now = self.clock.monotonic();
        let mut meetings = self.meetings.lock();
        meetings.retain(|_, meeting| meeting.is_alive(now));
        if meetings.len() >= COUNT_MAX {
            return Err(ApiError::limit_exceeded(IDLE_MAX));
        }
        let modified_ts = self.clock.now();
        let meeting = Meeting {
            data,
            revision: 1,
            made: now,
            used: now,
            expires_ts: modified_ts.checked_add(LIFE_MAX).unwrap_or(modified_ts),
            modified_ts,
        };
        let (id, met) = (random_id()?, meeting.met(now));
        meetings.insert(id.clone(), meeting);
        Ok((id, met))
    }

    /// What a rendezvous has.
    ///
    /// # Errors
    /// 404 `M_NOT_FOUND` when it is over or never was.
    pub fn read(&self, id: &str) -> Result<Met, ApiError> {
        self.with(id, |meeting, now| meeting.met(now))
    }

    /// Replaces the text of a rendezvous by somebody who has seen this revision.
    ///
    /// # Errors
    /// 413 `M_TOO_LARGE`; 404 `M_NOT_FOUND` when it is over or never was.
    pub fn write(&self, id: &str, seen: &str, data: String) -> Result<Written, ApiError> {
        check(&data)?;
        self.with(id, |meeting, now| {
            if meeting.revision.to_string() != seen {
                return Written::Unseen(meeting.met(now));
            }
            meeting.revision += 1;
            meeting.data = data;
            meeting.modified_ts = self.clock.now();
            Written::Done(meeting.met(now))
        })
    }

    /// Ends a rendezvous.
    ///
    /// # Errors
    /// 404 `M_NOT_FOUND` when it is over already or never was.
    pub fn end(&self, id: &str) -> Result<(), ApiError> {
        let now = self.clock.monotonic();
        let ended = self.meetings.lock().remove(id).filter(|meeting| meeting.is_alive(now));
        ended.map(|_| ()).ok_or_else(over)
    }

    /// Uses a rendezvous that is not over.
    fn with<T>(
        &self,
        id: &str,
        use_it: impl FnOnce(&mut Meeting, Duration) -> T,
    ) -> Result<T, ApiError> {
        let now = self.clock.monotonic();
        let mut meetings = self.meetings.lock();
        let meeting = meetings.get_mut(id).filter(|meeting| meeting.is_alive(now));
        let meeting = meeting.ok_or_else(over)?;
        meeting.used = now;
        Ok(use_it(meeting, now))
    }
}

fn over() -> ApiError {
    ApiError::not_found("There is no such rendezvous")
}

impl Meeting {
    fn is_alive(&self, now: Duration) -> bool {
        now.saturating_sub(self.made) < LIFE_MAX && now.saturating_sub(self.used) < IDLE_MAX
    }

    fn met(&self, now: Duration) -> Met {
        Met {
            data: self.data.clone(),
            revision: self.revision.to_string(),
            expires_in: LIFE_MAX.saturating_sub(now.saturating_sub(self.made)),
            expires_ts: self.expires_ts,
            modified_ts: self.modified_ts,
        }
    }
}

fn check(data: &str) -> Result<(), ApiError> {
    if data.len() > DATA_BYTES_MAX {
        return Err(ApiError::too_large(format!("At most {DATA_BYTES_MAX} bytes are taken here")));
    }
    Ok(())
}

fn random_id() -> Result<String, ApiError> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes).map_err(ApiError::internal)?;
    let base64 = ruma::serde::Base64::<ruma::serde::base64::UrlSafe, _>::new(bytes);
    Ok(base64.encode())
}
