//! Sends one application service its transactions, one after the other, for ever.
//!
//! One that is not acknowledged is sent again, the same bytes under the same id, after a pause that
//! doubles up to a bound and is shortened at random, so that many do not come back at once. A ping
//! that the application service asks for ends the pause.

use std::{sync::Arc, time::Duration};

use http::Method;

use super::{
    FAILURES_BEFORE_SKIPPING, Lane, Parts, is_unavailable, purge,
    transaction::{self, Transaction},
};
use crate::{appservices::Body, error::ApiError};

/// How long an application service may take to acknowledge.
const DURATION_MAX: Duration = Duration::from_mins(1);
/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(2);

/// Sends until the application service is removed.
pub(super) async fn run(parts: Parts, lane: Arc<Lane>) {
    let mut removed = lane.removed.subscribe();
    tokio::select! {
        () = send_all(&parts, &lane) => {}
        // The sender lives as long as `lane`.
        _ = removed.wait_for(|removed| *removed) => {}
    }
    if parts.appservices.registry().get(&lane.appservice.id).is_none() {
        purge(parts.store(), &lane.appservice.id).await;
    }
}

async fn send_all(parts: &Parts, lane: &Lane) {
    let mut pause = PAUSE_MIN;
    let mut failures = 0_u32;
    loop {
        let result = step(parts, lane, failures >= FAILURES_BEFORE_SKIPPING).await;
        match &result {
            Ok(_) => failures = 0,
            Err(error) => failures = failures.saturating_add(u32::from(!is_unavailable(error))),
        }
        match result {
            Ok(Outcome::Nothing) => {
                pause = PAUSE_MIN;
                lane.queued.notified().await;
            }
            Ok(Outcome::Arrived) => pause = PAUSE_MIN,
            Ok(Outcome::Failed(reason)) => {
                tracing::warn!(
                    appservice = %lane.appservice.id, reason, pause_s = pause.as_secs(),
                    "a transaction was not acknowledged and will be sent again"
                );
                wait(lane, &mut pause).await;
            }
            Err(error) => {
                tracing::error!(
                    appservice = %lane.appservice.id, %error, cause = ?error.source,
                    "a transaction cannot be made"
                );
                wait(lane, &mut pause).await;
            }
        }
    }
}

enum Outcome {
    Nothing,
    Arrived,
    Failed(String),
}

async fn step(parts: &Parts, lane: &Lane, skips: bool) -> Result<Outcome, ApiError> {
    let Some(transaction) = transaction::next(parts, lane, skips).await? else {
        return Ok(Outcome::Nothing);
    };
    match send(parts, lane, transaction).await {
        Ok(()) => {
            transaction::acknowledged(parts, lane).await?;
            Ok(Outcome::Arrived)
        }
        Err(reason) => Ok(Outcome::Failed(reason)),
    }
}

async fn send(parts: &Parts, lane: &Lane, transaction: Transaction) -> Result<(), String> {
    let Transaction { id, body } = transaction;
    let path = ["_matrix", "app", "v1", "transactions", &id];
    let legacy = ["transactions", &id];
    let request: (_, &[&str], &[&str]) = (Method::PUT, &path, &legacy);
    let content: (&[(String, String)], _) = (&[], Body::Json(body));
    let appservices = &parts.appservices;
    let called = appservices.call_or_legacy(&lane.appservice, request, content, DURATION_MAX).await;
    match called {
        Ok(called) if called.status.is_success() => Ok(()),
        Ok(called) => Err(format!("it answered {}", called.status.as_u16())),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits, and doubles the next wait.
async fn wait(lane: &Lane, pause: &mut Duration) {
    // Without randomness the whole pause.
    let share =
        getrandom::u32().map_or(1.0, |random| 0.5 + f64::from(random >> 1) / f64::from(u32::MAX));
    tokio::select! {
        () = tokio::time::sleep(pause.mul_f64(share)) => {}
        () = lane.appservice.reachable.notified() => {}
    }
    *pause = (*pause * 2).min(PAUSE_MAX);
}
