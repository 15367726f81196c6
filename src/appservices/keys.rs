//! Questions about keys to application services that keep those of their users themselves
//! (MSC3983, MSC3984).
//!
//! There is no telling beforehand whether one does: whoever does not know the question is not asked
//! it for an hour, and whoever fails not for some seconds, so that nobody waits again and again for
//! one that is down. A ping ends both. Only those that want encryption by their registration are
//! asked, and only about users whose names are reserved for them.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/3984>

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use ruma::UserId;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Appservice, Appservices, Body, requests::is_unknown_path};

/// How long an application service may take to answer. A user waits for it.
const QUESTION_DURATION_MAX: Duration = Duration::from_secs(5);
/// For how long one is not asked what it does not know.
const UNKNOWN_PAUSE: Duration = Duration::from_hours(1);
/// For how long one is not asked that gave no answer.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// A question about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyQuestion {
    /// For one-time keys.
    Claim,
    /// For the keys of devices and for cross-signing keys.
    Query,
}

impl KeyQuestion {
    fn path(self) -> [&'static str; 6] {
        match self {
            Self::Claim => ["_matrix", "app", "unstable", "org.matrix.msc3983", "keys", "claim"],
            Self::Query => ["_matrix", "app", "unstable", "org.matrix.msc3984", "keys", "query"],
        }
    }
}

/// The questions that an application service is not asked for a while, and until when.
#[derive(Debug, Default)]
pub(super) struct Silences(Mutex<HashMap<KeyQuestion, Instant>>);

impl Silences {
    fn holds(&self, question: KeyQuestion) -> bool {
        self.0.lock().get(&question).is_some_and(|until| *until > Instant::now())
    }

    fn begin(&self, question: KeyQuestion, pause: Duration) {
        self.0.lock().insert(question, Instant::now() + pause);
    }

    pub(super) fn end(&self) {
        self.0.lock().clear();
    }
}

impl Appservices {
    /// The application service that is to be asked about the keys of a user, if there is one.
    pub fn keeper_of_keys(
        &self,
        user_id: &UserId,
        question: KeyQuestion,
    ) -> Option<Arc<Appservice>> {
        let registry = self.registry();
        let mut all = registry.all().iter();
        let keeper = all.find(|one| one.wants_encryption() && one.reserves_user(user_id));
        keeper.filter(|one| !one.silences.holds(question)).cloned()
    }

    /// Asks an application service about keys. `None`: it gave no answer that can be read.
    pub async fn ask_keys<T: DeserializeOwned>(
        &self,
        appservice: &Appservice,
        question: KeyQuestion,
        body: Bytes,
    ) -> Option<T> {
        let Ok(_permit) = appservice.questions.try_acquire() else {
            tracing::warn!(appservice = %appservice.id, "too many questions at once");
            return None;
        };
        let path = question.path();
        let request: (_, &[&str]) = (Method::POST, &path);
        let content: (&[(String, String)], _) = (&[], Body::Json(body));
        let called = match self.call(appservice, request, content, QUESTION_DURATION_MAX).await {
            Ok(called) => called,
            Err(error) => {
                appservice.silences.begin(question, FAILURE_PAUSE);
                tracing::warn!(appservice = %appservice.id, %error, "a question has no answer");
                return None;
            }
        };
        if is_unknown_path(&called) {
            appservice.silences.begin(question, UNKNOWN_PAUSE);
            return None;
        }
        if !called.status.is_success() {
            appservice.silences.begin(question, FAILURE_PAUSE);
            let status = called.status.as_u16();
            tracing::warn!(appservice = %appservice.id, status, "a question was refused");
            return None;
        }
        let answer = serde_json::from_slice(&called.body);
        answer
            .inspect_err(|error| {
                tracing::warn!(appservice = %appservice.id, %error, "an answer cannot be read");
            })
            .ok()
    }
}
