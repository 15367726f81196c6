//! Proofs that somebody has an e-mail address: a mail with a link, and a page with a button.
//!
//! A session is known by what it is for and the client's secret; it lives for a day, allows a few
//! wrong tokens, and is used up with what it allows. Whether an account has the address is told only
//! to whoever reads the mail: the client gets the same answer, at the same time, in either case.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>

mod mailer;
mod proof;
mod templates;

use std::{ops::Bound, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kv::{Batch, Direction, Json, Store};
use lettre::Address;
use url::Url;

use self::mailer::Mailer;
pub use self::{proof::ProvenEmail, templates::escape};
use super::{
    accounts::{ATTEMPTS, busy, commit},
    grants::CLEARED_AT_ONCE,
    now_ms, secret,
    third_party::ThirdPartyIds,
};
use crate::{
    config::Config,
    error::ApiError,
    http::{ClientAddress, RateLimiter},
    storage::{
        rows::accounts::{EmailPurpose, EmailSessionRow},
        schema::accounts::{EMAIL_SESSION_ENDS, EMAIL_SESSIONS, ExpiringKey},
    },
    time::Clock,
};

/// The page that the links in mails lead to.
pub const CONFIRM_PATH: &str = "/_matrix/client/unstable/causerie/email/confirm";

/// How long a mail is good.
const LIFETIME: Duration = Duration::from_hours(24);

/// How many wrong tokens end a session.
const FAILURES_MAX: u32 = 5;

/// The longest address, as SMTP has it.
const ADDRESS_BYTES_MAX: usize = 254;

/// The longest secret a client may choose.
const CLIENT_SECRET_BYTES_MAX: usize = 255;

/// What a client asks a mail for.
#[derive(Clone, Debug)]
pub struct EmailRequest {
    /// What is to be proven.
    pub purpose: EmailPurpose,
    /// The client's secret.
    pub client_secret: String,
    /// The address, as the client wrote it.
    pub address: String,
    /// The client's number of this request: a number not higher than the last sends no mail.
    pub send_attempt: u64,
    /// Where the request comes from.
    pub client: ClientAddress,
}

/// Asks for and takes proofs of e-mail addresses.
#[derive(Clone)]
pub struct Emails(Arc<Parts>);

struct Parts {
    store: Store,
    clock: Clock,
    ids: ThirdPartyIds,
    server_name: String,
    base_url: Option<Url>,
    mailer: Option<Mailer>,
    by_client: RateLimiter,
    by_address: RateLimiter,
    confirmations: RateLimiter,
}

/// The address in the form in which it is stored: in lower case.
///
/// # Errors
/// 400 when it is none.
pub fn canonical(address: &str) -> Result<String, ApiError> {
    let lower = address.trim().to_lowercase();
    let is_plain = lower.len() <= ADDRESS_BYTES_MAX && !lower.contains(char::is_control);
    if is_plain && lower.parse::<Address>().is_ok() {
        return Ok(lower);
    }
    Err(ApiError::invalid_param("This is not an e-mail address"))
}

impl Emails {
    pub(super) fn new(store: Store, config: &Config, clock: Clock, ids: ThirdPartyIds) -> Self {
        let limits = &config.rate_limits;
        Self(Arc::new(Parts {
            store,
            clock,
            ids,
            server_name: config.server.name.to_string(),
            base_url: config.server.public_base_url.clone(),
            mailer: Mailer::new(&config.email),
            by_client: RateLimiter::of(limits, "email_requests", &limits.email_requests),
            by_address: RateLimiter::of(limits, "email_requests", &limits.email_requests),
            confirmations: RateLimiter::of(
                limits,
                "email_confirmations",
                &limits.email_confirmations,
            ),
        }))
    }

    /// Whether this server sends mail.
    pub fn is_enabled(&self) -> bool {
        self.0.mailer.is_some() && self.0.base_url.is_some()
    }

    /// Sends a mail, if the client's number asks for a new one; gives the session's id.
    ///
    /// # Errors
    /// `M_THREEPID_MEDIUM_NOT_SUPPORTED` where the server sends no mail, `M_INVALID_PARAM` when the
    /// secret was used for another address.
    pub async fn request(&self, request: EmailRequest) -> Result<String, ApiError> {
        let (Some(mailer), Some(base)) = (&self.0.mailer, &self.0.base_url) else {
            return Err(ApiError::threepid_medium_not_supported("This server sends no mail"));
        };
        if request.client_secret.len() > CLIENT_SECRET_BYTES_MAX {
            return Err(ApiError::invalid_param("The client secret is too long"));
        }
        let address = canonical(&request.address)?;
        self.0.by_client.check(request.client.limit_key())?;
        let key = session_key(request.purpose, &request.client_secret);
        for _ in 0..ATTEMPTS {
            let old = self.session(key).await?;
            if let Some(old) = self.live(old.as_ref()) {
                if old.address != address {
                    let message = "The client secret was used for another address";
                    return Err(ApiError::invalid_param(message));
                }
                if request.send_attempt <= old.send_attempt {
                    return Ok(session_id(key));
                }
            }
            // First, for who is refused here was sent nothing.
            let slot = mailer.slot()?;
            self.0.by_address.check(&address)?;
            let is_known = self.0.ids.owner(&address).await?.is_some();
            let proves = is_known == (request.purpose == EmailPurpose::ResetPassword);
            let token = proves.then(secret::random::<32>);
            let row = self.next_row(&request, &address, token);
            if self.write(key, old, row).await? {
                let link = token.map(|token| link(base, key, &token));
                let name = &self.0.server_name;
                let mail = templates::mail(name, request.purpose, link.as_deref());
                mailer.send(&address, mail, slot)?;
                return Ok(session_id(key));
            }
        }
        Err(busy())
    }

    /// Refuses an address from which too much is guessed.
    pub fn check_guess(&self, client: ClientAddress) -> Result<(), ApiError> {
        self.0.confirmations.check(client.limit_key())
    }

    /// Takes the token of a mail, from the page with the button.
    ///
    /// # Errors
    /// 403 for a wrong token or a mail that is too old, 429 after too many wrong tokens.
    pub async fn confirm(
        &self,
        id: &str,
        token: &str,
        client: ClientAddress,
    ) -> Result<(), ApiError> {
        self.check_guess(client)?;
        let shown = URL_SAFE_NO_PAD.decode(token).map(|token| secret::hash(&token));
        for _ in 0..ATTEMPTS {
            let key = key_of_id(id).ok_or_else(wrong_link)?;
            let old = self.session(key).await?;
            let row = self.live(old.as_ref()).cloned().ok_or_else(wrong_link)?;
            if row.failures >= FAILURES_MAX {
                return Err(ApiError::limit_exceeded(LIFETIME));
            }
            let is_right = row.token.is_some() && row.token == shown.as_ref().ok().copied();
            let validated_ts = row.validated_ts.or_else(|| Some(now_ms(&self.0.clock)));
            let new = if is_right {
                EmailSessionRow { validated_ts, ..row }
            } else {
                EmailSessionRow { failures: row.failures + 1, ..row }
            };
            if self.write(key, old, new).await? {
                return if is_right { Ok(()) } else { Err(wrong_link()) };
            }
        }
        Err(busy())
    }

    /// What a client has proven by now. `None`: the link in the mail was not followed yet.
    ///
    /// # Errors
    /// `M_THREEPID_AUTH_FAILED` when there is no such session (any more).
    pub async fn proven(
        &self,
        purpose: EmailPurpose,
        id: &str,
        client_secret: &str,
    ) -> Result<Option<ProvenEmail>, ApiError> {
        let key = session_key(purpose, client_secret);
        let row = if key_of_id(id) == Some(key) { self.session(key).await? } else { None };
        let row = self.live(row.as_ref()).cloned().ok_or_else(proof::unknown)?;
        Ok(ProvenEmail::new(key, row))
    }

    async fn session(&self, key: [u8; 32]) -> Result<Option<EmailSessionRow>, ApiError> {
        let row = self.0.store.read(move |reader| reader.get(&EMAIL_SESSIONS, &key)).await?;
        Ok(row.map(|Json(row)| row))
    }

    fn live<'a>(&self, row: Option<&'a EmailSessionRow>) -> Option<&'a EmailSessionRow> {
        row.filter(|row| row.expires_ts > now_ms(&self.0.clock))
    }

    fn next_row(
        &self,
        request: &EmailRequest,
        address: &str,
        token: Option<[u8; 32]>,
    ) -> EmailSessionRow {
        let lifetime_ms = u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX);
        EmailSessionRow {
            purpose: request.purpose,
            address: address.to_owned(),
            token: token.map(|token| secret::hash(&token)),
            send_attempt: request.send_attempt,
            failures: 0,
            validated_ts: None,
            expires_ts: now_ms(&self.0.clock).saturating_add(lifetime_ms),
        }
    }

    /// Writes a session in place of what it was; `false`: it has changed since.
    async fn write(
        &self,
        key: [u8; 32],
        old: Option<EmailSessionRow>,
        new: EmailSessionRow,
    ) -> Result<bool, ApiError> {
        let now = now_ms(&self.0.clock);
        let ended = EMAIL_SESSION_ENDS.range(Bound::Unbounded::<&()>, Bound::Excluded(&now));
        let ended = self.0.store.read(move |reader| {
            reader.scan(&EMAIL_SESSION_ENDS, &ended, Direction::Forward, CLEARED_AT_ONCE)
        });
        let mut batch = Batch::new();
        for (ended, ()) in ended.await? {
            batch.delete(&EMAIL_SESSION_ENDS, &ended);
            if ended.hash != key {
                batch.delete(&EMAIL_SESSIONS, &ended.hash);
            }
        }
        if let Some(old) = &old {
            batch.delete(&EMAIL_SESSION_ENDS, &ends(key, old));
        }
        batch.check(&EMAIL_SESSIONS, &key, old.map(Json).as_ref());
        batch.put(&EMAIL_SESSION_ENDS, &ends(key, &new), &());
        batch.put(&EMAIL_SESSIONS, &key, &Json(new));
        Ok(commit(&self.0.store, batch).await?.is_some())
    }
}

fn ends(key: [u8; 32], row: &EmailSessionRow) -> ExpiringKey {
    ExpiringKey { expires_ts: row.expires_ts, hash: key }
}

fn session_key(purpose: EmailPurpose, client_secret: &str) -> [u8; 32] {
    let purpose: &[u8] = match purpose {
        EmailPurpose::Register => b"register",
        EmailPurpose::Add => b"add",
        EmailPurpose::ResetPassword => b"reset_password",
    };
    secret::hash_parts(&[purpose, client_secret.as_bytes()])
}

fn session_id(key: [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

fn key_of_id(id: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()
}

fn link(base: &Url, key: [u8; 32], token: &[u8]) -> String {
    let base = base.as_str().trim_end_matches('/');
    let (id, token) = (session_id(key), URL_SAFE_NO_PAD.encode(token));
    format!("{base}{CONFIRM_PATH}?sid={id}&token={token}")
}

fn wrong_link() -> ApiError {
    ApiError::forbidden("The link is wrong, too old or used already")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_in_lower_case() {
        assert_eq!(canonical(" Alice@Example.ORG ").unwrap(), "alice@example.org");
        let long = format!("{}@example.org", "x".repeat(250));
        for wrong in ["", "alice", "a@b@c", "a@b\r\nBcc: c@d", "Alice <a@b.c>", "a@b, c@d", &long] {
            assert_eq!(canonical(wrong).unwrap_err().errcode, "M_INVALID_PARAM", "{wrong}");
        }
    }
}
