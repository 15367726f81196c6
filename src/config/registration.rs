//! The section `[registration]`: who may make an account.

use serde::{Deserialize, Serialize};

use super::Secret;

/// Who may make an account. An administrator always can, with `causerie admin create-user`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationConfig {
    /// Whether people may register themselves, with one of the `tokens` below.
    pub enabled: bool,

    /// The registration tokens that are accepted: letters, digits, `.`, `_`, `~` and `-`, at most
    /// 64 characters each. Whoever knows one can make any number of accounts.
    ///
    /// Example: `["a-long-random-text"]`
    pub tokens: Vec<Secret>,

    /// Whether people may register without a token. On a public address that invites spammers
    /// within days, so the server refuses to start with it unless every listener for clients is on a
    /// loopback address.
    pub open_without_token: bool,

    /// Says that registration without a token is wanted although others than this machine can
    /// reach the server.
    pub i_understand_that_anyone_can_register: bool,
}
