//! Sync tokens: a position in the order of commits, and the epoch of the database it is of.
//!
//! A restore changes the epoch, so that a token of what was lost leads to a full sync and not to
//! silence. The letter is the version of the format; `rooms::timeline` reads the position of a
//! token where one stands for a place in a timeline. Where not all messages that waited for the
//! device were told, a third part says how far they were.

use std::fmt;

use kv::Position;

use crate::error::ApiError;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    /// The epoch of the database.
    pub epoch: u64,
    /// All that was committed up to here has been told.
    pub position: Position,
    /// Messages for the device were told up to here, and not up to the position.
    pub inbox: Option<Position>,
}

impl SyncToken {
    /// Reads a token that a client sends.
    ///
    /// # Errors
    /// `M_INVALID_PARAM` for anything that never was a token.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let token = || {
            let (epoch, position) = text.strip_prefix('s')?.split_once('_')?;
            let (position, inbox) = match position.split_once('_') {
                Some((position, inbox)) => (position, Some(inbox)),
                None => (position, None),
            };
            let digits = |text: &str| {
                !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_hexdigit())
            };
            if !digits(epoch) || !digits(position) || !inbox.is_none_or(digits) {
                return None;
            }
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            let at = |digits: &str| digits.parse().ok().map(Position::from_u64);
            let position = at(position)?;
            let inbox = match inbox {
                // They are never told beyond everything else.
                Some(inbox) => Some(at(inbox).filter(|inbox| *inbox < position)?),
                None => None,
            };
            Some(Self { epoch, position, inbox })
        };
        token().ok_or_else(|| ApiError::invalid_param("This is not a token of a sync"))
    }

    /// The position to go on from; `None` when the token is of another epoch or from the future, so
    /// that everything must be told again.
    pub fn since(self, epoch: u64, newest: Position) -> Option<Position> {
        (self.epoch == epoch && self.position <= newest).then_some(self.position)
    }

    /// Up to where messages for the device were told.
    pub fn messages(self) -> Position {
        self.inbox.unwrap_or(self.position)
    }
}

impl fmt::Display for SyncToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s{:x}_{}", self.epoch, self.position)?;
        self.inbox.map_or(Ok(()), |inbox| write!(formatter, "_{inbox}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: SyncToken =
        SyncToken { epoch: 0xa5, position: Position::from_u64(42), inbox: None };

    #[test]
    fn a_token_reads_as_it_was_written() {
        assert_eq!(TOKEN.to_string(), "sa5_42");
        assert_eq!(SyncToken::parse("sa5_42").unwrap(), TOKEN);
        let last = SyncToken { epoch: u64::MAX, position: Position::MAX, inbox: None };
        assert_eq!(SyncToken::parse(&last.to_string()).unwrap(), last);
        let cut = SyncToken { inbox: Some(Position::from_u64(7)), ..TOKEN };
        assert_eq!(cut.to_string(), "sa5_42_7");
        assert_eq!(SyncToken::parse("sa5_42_7").unwrap(), cut);
        assert_eq!((cut.messages().as_u64(), TOKEN.messages().as_u64()), (7, 42));
    }

    #[test]
    fn t89_garbage_is_refused() {
        for text in [
            "",
            "s",
            "s_",
            "sa5_",
            "s_42",
            "42",
            "sa5_4x",
            "s+5_42",
            "sa5_-1",
            "sa5_+1",
            "sa5_4_",
            "sa5_4_x",
            "sa5_4_+2",
            "sa5_4_2_1",
            "sa5_4_4",
            "sa5_4_5",
            "t1_42",
            "s11111111111111111_1",
            "sa5_99999999999999999999",
            "sa5_42 ",
            "sg_1",
        ] {
            let error = SyncToken::parse(text).unwrap_err();
            assert_eq!(
                (error.status.as_u16(), &*error.errcode),
                (400, "M_INVALID_PARAM"),
                "{text}"
            );
        }
    }

    #[test]
    fn t89_another_epoch_and_the_future_begin_anew() {
        let now = Position::from_u64(50);
        assert_eq!(TOKEN.since(0xa5, now), Some(TOKEN.position));
        assert_eq!(TOKEN.since(0xa5, TOKEN.position), Some(TOKEN.position));
        assert_eq!(TOKEN.since(0xa6, now), None);
        assert_eq!(TOKEN.since(0xa5, Position::from_u64(41)), None);
    }
}
