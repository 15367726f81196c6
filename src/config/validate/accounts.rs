//! The rules of the sections about accounts: terms, mail, support.

use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};

use super::{Outcome, refusal};
use crate::config::{Config, Policy};

pub(super) fn validate(config: &Config) -> Outcome {
    email(config)?;
    config.registration.terms.iter().try_for_each(policy)?;
    for (index, policy) in config.registration.terms.iter().enumerate() {
        if config.registration.terms[..index].iter().any(|other| other.name == policy.name) {
            return Err(refusal(format!("`registration.terms` names `{}` twice", policy.name)));
        }
    }
    support(config)
}

fn email(config: &Config) -> Outcome {
    let email = &config.email;
    let Some(url) = &email.smtp_url else {
        if config.registration.require_email {
            return Err(refusal(
                "`registration.require_email` needs a mail server: set `email.smtp_url`",
            ));
        }
        return Ok(());
    };
    AsyncSmtpTransport::<Tokio1Executor>::from_url(url.reveal()).map_err(|_| {
        refusal(
            "`email.smtp_url` is not the address of a mail server such as \
             `smtps://user:password@mail.example.org`",
        )
    })?;
    let from = email.from.as_deref().unwrap_or_default();
    if from.parse::<Mailbox>().is_err() {
        return Err(refusal(
            "`email.from` must be an e-mail address such as `Causerie <noreply@example.org>`",
        ));
    }
    if config.server.public_base_url.is_none() {
        return Err(refusal(
            "`email.smtp_url` is set but mails could have no link: set `server.public_base_url`",
        ));
    }
    Ok(())
}

fn policy(policy: &Policy) -> Outcome {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if policy.name.is_empty() || !policy.name.bytes().all(is_name) {
        return Err(refusal(format!(
            "`registration.terms` has a policy with the name `{}`: use a-z, 0-9 and `_`",
            policy.name
        )));
    }
    if !matches!(policy.url.scheme(), "http" | "https") {
        return Err(refusal(format!(
            "The policy `{}` in `registration.terms` has a `url` that is no web address",
            policy.name
        )));
    }
    Ok(())
}

fn support(config: &Config) -> Outcome {
    for contact in &config.support.contacts {
        if contact.matrix_id.is_none() && contact.email_address.is_none() {
            return Err(refusal(
                "A contact in `support.contacts` has neither a `matrix_id` nor an `email_address`",
            ));
        }
    }
    Ok(())
}
