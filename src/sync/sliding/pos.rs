//! The tokens of sliding sync.
//!
//! A `pos` is a token of `/sync`, so that it can be given to `/messages` too, with a dot and the
//! number of the answer. The token of the threads' history is a position, that of the messages for
//! the device one with the epoch.

use kv::Position;

use crate::sync::token::SyncToken;

/// The token of an answer.
pub(super) fn write(token: SyncToken, answer: u64) -> String {
    format!("{token}.{answer}")
}

/// The number of the answer that a token is of; `None` for anything that never was one.
pub(super) fn answer(pos: &str) -> Option<u64> {
    let (token, answer) = pos.split_once('.')?;
    SyncToken::parse(token).ok()?;
    let is_number = answer.len() <= 20 && answer.bytes().all(|byte| byte.is_ascii_digit());
    answer.parse().ok().filter(|_| is_number)
}

/// The position of a `pos` or of a token of `/sync`.
pub(super) fn position(pos: &str, epoch: u64, newest: Position) -> Option<Position> {
    let token = pos.split_once('.').map_or(pos, |(token, _)| token);
    SyncToken::parse(token).ok()?.since(epoch, newest)
}

/// Up to where messages for the device were told.
pub(super) fn device_token(epoch: u64, told: Position) -> String {
    format!("d{epoch:x}_{told}")
}

/// The position of such a token. One of another epoch or from the future proves nothing, and no more
/// does what an older version of the server may have given: then all that waits is told again.
pub(super) fn device_position(token: &str, epoch: u64, newest: Position) -> Option<Position> {
    let token = token.strip_prefix('d')?;
    let token = SyncToken::parse(&format!("s{token}")).ok()?;
    token.since(epoch, newest).filter(|_| token.inbox.is_none())
}

/// Where the history of thread subscriptions goes on: before this position.
pub(super) fn thread_token(before: Position) -> String {
    format!("h{before}")
}

/// The position of such a token.
pub(super) fn thread_position(token: &str) -> Option<Position> {
    let digits = token.strip_prefix('h')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number).map(Position::from_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_as_they_were_written() {
        let at = Position::from_u64(42);
        let pos = write(SyncToken { epoch: 0xa5, position: at, inbox: None }, 7);
        assert_eq!(pos, "sa5_42.7");
        assert_eq!(answer(&pos), Some(7));
        assert_eq!(position(&pos, 0xa5, at), Some(at));
        assert_eq!(position("sa5_42", 0xa5, at), Some(at));
        assert_eq!(position(&pos, 0xa6, at), None, "another epoch");
        assert_eq!(thread_position(&thread_token(at)), Some(at));
        let token = device_token(0xa5, at);
        assert_eq!(token, "da5_42");
        assert_eq!(device_position(&token, 0xa5, at), Some(at));
        assert_eq!(device_position(&token, 0xa6, at), None, "another epoch");
        assert_eq!(device_position(&token, 0xa5, Position::from_u64(41)), None, "the future");
    }

    #[test]
    fn t89_garbage_is_no_token() {
        let long = format!("sa5_42.{}", "9".repeat(30));
        for pos in ["", ".", "sa5_42", "sa5_42.", "sa5_42.x", "sa5_42.-1", "sa5_42.+1", ".7", &long]
        {
            assert_eq!(answer(pos), None, "{pos}");
        }
        for token in ["", "h", "hx", "h-1", "h+1", "42"] {
            assert_eq!(thread_position(token), None, "{token}");
        }
        for token in ["", "d", "42", "d42", "da5_", "da5_42_7", "sa5_42", "da5_42.7"] {
            assert_eq!(device_position(token, 0xa5, Position::from_u64(50)), None, "{token}");
        }
    }
}
