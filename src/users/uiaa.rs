//! User-interactive authentication: the proof that it is the user who asks, not just the device.
//!
//! A session of it belongs to one user, one operation and one body; it lives for some minutes in
//! memory, allows a few wrong answers, and ends when it succeeds. While nothing is proven, somebody
//! who registers may still change the body: clients ask with an empty one first.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use ruma::{
    OwnedUserId, UserId,
    api::client::uiaa::{AuthData, AuthType, UserIdentifier},
};
use serde_json::json;

use super::{Login, Registration, secret};
use crate::{config::Config, error::ApiError, time::Clock};

/// More sessions than this at once drop the oldest.
const SESSIONS_MAX: usize = 10_000;

/// More sessions of one owner than this at once drop the owner's oldest.
const SESSIONS_OF_OWNER_MAX: usize = 20;

/// Who begins a session, and makes room when there are too many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A user.
    User(OwnedUserId),
    /// Somebody who registers, by the address to limit by.
    Address(IpAddr),
}

impl Owner {
    fn user_id(&self) -> Option<&UserId> {
        match self {
            Self::User(user_id) => Some(user_id),
            Self::Address(_) => None,
        }
    }
}

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who wants it.
    pub owner: Owner,
    /// The endpoint, with what its path names.
    pub name: String,
    /// The hash of all parameters that matter.
    pub body: [u8; 32],
    /// The flows, each of which is enough.
    pub flows: Vec<Vec<AuthType>>,
}

impl Operation {
    /// Something a user wants to do who proves it with the password.
    pub fn with_password(user_id: &UserId, name: impl Into<String>, body: &[&[u8]]) -> Self {
        Self {
            owner: Owner::User(user_id.to_owned()),
            name: name.into(),
            body: secret::hash_parts(body),
            flows: vec![vec![AuthType::Password]],
        }
    }
}

/// What was proven.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The registration token that was shown.
    pub registration_token: Option<secret::Token>,
}

/// Keeps the sessions and checks the answers.
#[derive(Clone)]
pub struct Uiaa(Arc<Parts>);

struct Parts {
    clock: Clock,
    lifetime: Duration,
    attempts_max: usize,
    login: Login,
    registration: Registration,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    next: u64,
    /// The oldest first; each lives equally long.
    by_age: BTreeMap<u64, Session>,
    by_id: HashMap<String, u64>,
    by_owner: HashMap<Owner, BTreeSet<u64>>,
}

#[derive(Clone, Debug)]
struct Session {
    id: String,
    ends: Duration,
    owner: Owner,
    /// The hash of the operation's name.
    name: [u8; 32],
    body: [u8; 32],
    failures: usize,
    completed: Vec<AuthType>,
    proof: Proof,
}

impl Sessions {
    fn get_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.by_age.get_mut(self.by_id.get(id)?)
    }

    /// Adds a session; the owner's oldest makes room, or the oldest of all.
    fn add(&mut self, session: Session) {
        let age = self.next;
        self.next += 1;
        let of_owner = self.by_owner.entry(session.owner.clone()).or_default();
        let crowded = of_owner.len() >= SESSIONS_OF_OWNER_MAX;
        let oldest = of_owner.first().copied().filter(|_| crowded);
        of_owner.insert(age);
        self.by_id.insert(session.id.clone(), age);
        self.by_age.insert(age, session);
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
        while self.by_age.len() > SESSIONS_MAX
            && let Some((&oldest, _)) = self.by_age.first_key_value()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, age: u64) -> Option<Session> {
        let session = self.by_age.remove(&age)?;
        self.by_id.remove(&session.id);
        if let Some(of_owner) = self.by_owner.get_mut(&session.owner) {
            of_owner.remove(&age);
            if of_owner.is_empty() {
                self.by_owner.remove(&session.owner);
            }
        }
        Some(session)
    }
}

/// How an answer to a stage turned out.
enum Answer {
    Right(Proof),
    Wrong(&'static str),
}

impl Uiaa {
    pub(super) fn new(
        config: &Config,
        clock: Clock,
        login: Login,
        registration: Registration,
    ) -> Self {
        Self(Arc::new(Parts {
            clock,
            lifetime: config.limits.uia_session_lifetime(),
            attempts_max: config.limits.uia_attempts_max,
            login,
            registration,
            sessions: Mutex::default(),
        }))
    }

    /// Passes when the answer completes a flow; else 401 with what is still to do.
    pub async fn check(
        &self,
        operation: &Operation,
        auth: Option<&AuthData>,
    ) -> Result<Proof, ApiError> {
        let Some(auth) = auth else {
            let id = self.begin(operation);
            return Err(challenge(operation, &id, &[]));
        };
        let id = match auth.session() {
            Some(id) if self.join(operation, id)? => id.to_owned(),
            // An answer without a session begins one; one that is over begins anew.
            Some(_) => return Err(challenge(operation, &self.begin(operation), &[])),
            None => self.begin(operation),
        };
        let completed = self.completed(&id);
        let Some(stage) = auth.auth_type() else {
            return Err(challenge(operation, &id, &completed));
        };
        if !operation.flows.iter().any(|flow| flow.contains(&stage)) {
            let message = "The stage is in none of the flows";
            let challenge = challenge(operation, &id, &completed);
            return Err(with_error(challenge, "M_UNRECOGNIZED", message));
        }
        match self.answer(operation, auth).await? {
            Answer::Right(proof) => self.complete(operation, &id, stage, proof),
            Answer::Wrong(message) => {
                self.count_failure(&id);
                let challenge = challenge(operation, &id, &completed);
                Err(with_error(challenge, "M_FORBIDDEN", message))
            }
        }
    }

    async fn answer(&self, operation: &Operation, auth: &AuthData) -> Result<Answer, ApiError> {
        match auth {
            AuthData::Dummy(_) => Ok(Answer::Right(Proof::default())),
            AuthData::Password(answer) => {
                let UserIdentifier::Matrix(identifier) = &answer.identifier else {
                    return Ok(Answer::Wrong("The user is not known by this identifier"));
                };
                let user_id = operation.owner.user_id();
                let named = self.0.login.parse(&identifier.user);
                let Some(user_id) = user_id.filter(|user_id| named.as_deref() == Some(*user_id))
                else {
                    return Err(ApiError::forbidden("This is another user's session"));
                };
                let right = self.0.login.verified(user_id, &answer.password).await?.is_some();
                Ok(if right {
                    Answer::Right(Proof::default())
                } else {
                    Answer::Wrong("The password is wrong")
                })
            }
            AuthData::RegistrationToken(answer) => {
                let valid = self.0.registration.is_valid_token(&answer.token).await?;
                let registration_token = Some(secret::Token::from(answer.token.clone()));
                Ok(if valid {
                    Answer::Right(Proof { registration_token })
                } else {
                    Answer::Wrong("The registration token is not valid")
                })
            }
            _ => Ok(Answer::Wrong("The stage is not supported")),
        }
    }

    /// Joins a session. `false`: there is none of this name (any more).
    fn join(&self, operation: &Operation, id: &str) -> Result<bool, ApiError> {
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(id) else { return Ok(false) };
        let (owner, name) = (&session.owner, hash_of(&operation.name));
        // Somebody who registers may come from another address by now.
        if owner.user_id() != operation.owner.user_id() || session.name != name {
            return Err(ApiError::forbidden("The session was begun for something else"));
        }
        if session.body != operation.body {
            if session.owner.user_id().is_some() || !session.completed.is_empty() {
                return Err(ApiError::forbidden("The request is not the one that was begun"));
            }
            session.body = operation.body;
        }
        if session.failures >= self.0.attempts_max {
            return Err(ApiError::limit_exceeded(self.0.lifetime));
        }
        Ok(true)
    }

    fn begin(&self, operation: &Operation) -> String {
        let id = secret::Token::new("").into_string();
        let session = Session {
            id: id.clone(),
            ends: self.0.clock.monotonic() + self.0.lifetime,
            owner: operation.owner.clone(),
            name: hash_of(&operation.name),
            body: operation.body,
            failures: 0,
            completed: Vec::new(),
            proof: Proof::default(),
        };
        self.sessions().add(session);
        id
    }

    fn completed(&self, id: &str) -> Vec<AuthType> {
        let mut sessions = self.sessions();
        sessions.get_mut(id).map(|session| session.completed.clone()).unwrap_or_default()
    }

    /// Notes a completed stage; ends the session when a flow is complete.
    fn complete(
        &self,
        operation: &Operation,
        id: &str,
        stage: AuthType,
        proof: Proof,
    ) -> Result<Proof, ApiError> {
        let mut sessions = self.sessions();
        // Of two right answers at once, one ends the session and the other finds it gone.
        let Some(session) = sessions.get_mut(id) else {
            drop(sessions);
            return Err(challenge(operation, &self.begin(operation), &[]));
        };
        if session.body != operation.body {
            return Err(ApiError::forbidden("The request is not the one that was begun"));
        }
        if !session.completed.contains(&stage) {
            session.completed.push(stage);
        }
        if let Some(token) = proof.registration_token {
            session.proof.registration_token = Some(token);
        }
        let is_complete =
            |flow: &Vec<AuthType>| flow.iter().all(|stage| session.completed.contains(stage));
        if operation.flows.iter().any(is_complete) {
            let age = sessions.by_id.get(id).copied();
            let session = age.and_then(|age| sessions.remove(age));
            return Ok(session.map(|session| session.proof).unwrap_or_default());
        }
        Err(challenge(operation, id, &session.completed))
    }

    fn count_failure(&self, id: &str) {
        if let Some(session) = self.sessions().get_mut(id) {
            session.failures += 1;
        }
    }

    /// The sessions that still live.
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // A poisoned map is whole: no step between two of its changes can panic.
        let mut sessions = self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.0.clock.monotonic();
        while let Some((&oldest, session)) = sessions.by_age.first_key_value()
            && session.ends <= now
        {
            sessions.remove(oldest);
        }
        sessions
    }
}

/// The hash of an operation's name, which holds what the client wrote in the path.
fn hash_of(name: &str) -> [u8; 32] {
    secret::hash(name.as_bytes())
}

/// 401 with the flows, as the specification has it: without an errcode.
fn challenge(operation: &Operation, session: &str, completed: &[AuthType]) -> ApiError {
    let names = |stages: &[AuthType]| -> Vec<String> {
        stages.iter().map(|stage| stage.as_str().to_owned()).collect()
    };
    let flows: Vec<_> =
        operation.flows.iter().map(|flow| json!({ "stages": names(flow) })).collect();
    ApiError::new(StatusCode::UNAUTHORIZED, "", "User-interactive authentication is needed")
        .with("flows", json!(flows))
        .with("params", json!({}))
        .with("session", json!(session))
        .with("completed", json!(names(completed)))
}

fn with_error(mut challenge: ApiError, errcode: &'static str, message: &'static str) -> ApiError {
    challenge.errcode = errcode.into();
    challenge.message = message.into();
    challenge
}
