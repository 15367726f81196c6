//! Sends mail over SMTP, in the background: nobody waits for the mail server, and nobody can tell
//! from the time an answer takes which mail was sent.

use std::sync::Arc;

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, MultiPart},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::templates::Mail;
use crate::{config::EmailConfig, error::ApiError};

/// How many mails may be on their way at once.
const MAILS_AT_ONCE: usize = 64;

/// Sends mail from one address through one server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    slots: Arc<Semaphore>,
}

impl Mailer {
    /// As it is configured; `None`: not at all.
    pub(super) fn new(config: &EmailConfig) -> Option<Self> {
        let url = config.smtp_url.as_ref()?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.reveal());
        // Both were checked with the configuration.
        let transport = transport.ok()?.build();
        let from = config.from.as_deref()?.parse().ok()?;
        Some(Self { transport, from, slots: Arc::new(Semaphore::new(MAILS_AT_ONCE)) })
    }

    /// What one mail needs to be sent.
    ///
    /// # Errors
    /// 503 when too many mails are on their way.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            ApiError::unavailable("The server has too many mails to send; try again later")
        })
    }

    /// Sends a mail. What the mail server says goes to the log.
    pub(super) fn send(
        &self,
        address: &str,
        mail: Mail,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), ApiError> {
        let to: Mailbox = address.parse().map_err(ApiError::internal)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(mail.subject)
            .message_id(None)
            .multipart(MultiPart::alternative_plain_html(mail.plain, mail.html))
            .map_err(ApiError::internal)?;
        let transport = self.transport.clone();
        tokio::spawn(async move {
            if let Err(error) = transport.send(message).await {
                tracing::warn!(%error, "a mail could not be sent");
            }
            drop(slot);
        });
        Ok(())
    }
}
