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
    api::client::uiaa::{AuthData, AuthType, Password, UserIdentifier},
};
use serde_json::{Value, json};

use super::{
    Emails, Login, LoginName, Registration,
    email::{ProvenEmail, canonical},
    secret,
};
use crate::{config::Config, error::ApiError, storage::rows::accounts::EmailPurpose, time::Clock};

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
    /// What the stages need to know, by stage.
    pub params: Value,
    /// What a proof of an e-mail address must have been asked for.
    pub email: EmailPurpose,
}

impl Operation {
    /// Something a user wants to do who proves it with the password.
    pub fn with_password(user_id: &UserId, name: impl Into<String>, body: &[&[u8]]) -> Self {
        Self {
            owner: Owner::User(user_id.to_owned()),
            name: name.into(),
            body: secret::hash_parts(body),
            flows: vec![vec![AuthType::Password]],
            params: json!({}),
            email: EmailPurpose::Add,
        }
    }
}

/// What was proven.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// The registration token that was shown.
    pub registration_token: Option<secret::Token>,
    /// The e-mail address that was proven.
    pub email: Option<ProvenEmail>,
    /// Whether the terms were accepted.
    pub terms: bool,
}

impl Proof {
    fn merge(&mut self, other: Self) {
        self.registration_token = other.registration_token.or(self.registration_token.take());
        self.email = other.email.or(self.email.take());
        self.terms |= other.terms;
    }
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
    emails: Emails,
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
    /// The stages of its operation, for the pages of those that a client cannot show.
    flows: Vec<Vec<AuthType>>,
    params: Value,
    email: EmailPurpose,
}

impl Session {
    fn is_complete(&self, flows: &[Vec<AuthType>]) -> bool {
        flows.iter().any(|flow| flow.iter().all(|stage| self.completed.contains(stage)))
    }
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

/// What an answer to a stage is checked against.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// The user who must be proven, for stages about one.
    user_id: Option<&'a UserId>,
    email: EmailPurpose,
    /// The session.
    id: &'a str,
}

/// How an answer to a stage turned out.
enum Answer {
    Right(Proof),
    Wrong(&'static str),
    /// Not yet; asking again is no mistake.
    Pending(&'static str),
}

impl Uiaa {
    pub(super) fn new(
        config: &Config,
        clock: Clock,
        login: Login,
        registration: Registration,
        emails: Emails,
    ) -> Self {
        Self(Arc::new(Parts {
            clock,
            lifetime: config.limits.uia_session_lifetime(),
            attempts_max: config.limits.uia_attempts_max,
            login,
            registration,
            emails,
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
            // What is left may have been answered on a page.
            let proof = self.finish(&id, &operation.flows);
            return proof.ok_or_else(|| challenge(operation, &id, &completed));
        };
        if !operation.flows.iter().any(|flow| flow.contains(&stage)) {
            let message = "The stage is in none of the flows";
            let challenge = challenge(operation, &id, &completed);
            return Err(with_error(challenge, "M_UNRECOGNIZED", message));
        }
        if completed.contains(&stage) {
            let proof = self.finish(&id, &operation.flows);
            return proof.ok_or_else(|| challenge(operation, &id, &completed));
        }
        let asked = Asked { user_id: operation.owner.user_id(), email: operation.email, id: &id };
        match self.answer(asked, auth).await? {
            Answer::Right(proof) => self.complete(operation, &id, stage, proof),
            Answer::Wrong(message) => {
                self.count_failure(&id);
                let challenge = challenge(operation, &id, &completed);
                Err(with_error(challenge, "M_FORBIDDEN", message))
            }
            Answer::Pending(message) => {
                let challenge = challenge(operation, &id, &completed);
                Err(with_error(challenge, "M_UNAUTHORIZED", message))
            }
        }
    }

    /// What a stage of a session needs to know, for the page of a stage. `None`: the session has no
    /// such stage.
    pub fn stage_of_page(&self, id: &str, stage: &AuthType) -> Option<Value> {
        let mut sessions = self.sessions();
        let session = sessions.get_mut(id)?;
        let has_stage = session.flows.iter().any(|flow| flow.contains(stage));
        has_stage.then(|| session.params[stage.as_str()].clone())
    }

    /// What a proof of an e-mail address in a session must have been asked for.
    pub fn email_purpose(&self, id: &str) -> Option<EmailPurpose> {
        self.sessions().get_mut(id).map(|session| session.email)
    }

    /// Takes the answer to a stage from its page. The client then goes on with the session.
    ///
    /// # Errors
    /// 403 for a wrong answer, 404 when there is no such session, 429 after too many wrong answers.
    pub async fn answer_on_page(&self, id: &str, auth: &AuthData) -> Result<(), ApiError> {
        let gone = || ApiError::not_found("The session has ended; begin again");
        let stage = auth.auth_type().ok_or_else(gone)?;
        let (owner, email) = {
            let mut sessions = self.sessions();
            let session = sessions.get_mut(id).ok_or_else(gone)?;
            if !session.flows.iter().any(|flow| flow.contains(&stage)) {
                return Err(gone());
            }
            if session.failures >= self.0.attempts_max {
                return Err(ApiError::limit_exceeded(self.0.lifetime));
            }
            (session.owner.clone(), session.email)
        };
        let asked = Asked { user_id: owner.user_id(), email, id };
        match self.answer(asked, auth).await? {
            Answer::Right(proof) => {
                let mut sessions = self.sessions();
                let session = sessions.get_mut(id).ok_or_else(gone)?;
                session.proof.merge(proof);
                if !session.completed.contains(&stage) {
                    session.completed.push(stage);
                }
                Ok(())
            }
            Answer::Wrong(message) => {
                self.count_failure(id);
                Err(ApiError::forbidden(message))
            }
            Answer::Pending(message) => Err(ApiError::forbidden(message)),
        }
    }

    /// How many sessions have shown a registration token and not made their account yet. Walks
    /// through all sessions, which are bounded, as often as somebody shows a token, which is limited.
    pub fn pending_uses(&self, token: &str) -> u64 {
        self.pending_uses_but(token, "")
    }

    fn pending_uses_but(&self, token: &str, id: &str) -> u64 {
        let sessions = self.sessions();
        let shows = |session: &&Session| {
            let shown = session.proof.registration_token.as_ref();
            session.id != id && shown.is_some_and(|shown| shown.reveal() == token)
        };
        sessions.by_age.values().filter(shows).count() as u64
    }

    async fn answer(&self, asked: Asked<'_>, auth: &AuthData) -> Result<Answer, ApiError> {
        match auth {
            AuthData::Dummy(_) => Ok(Answer::Right(Proof::default())),
            AuthData::Terms(_) => Ok(Answer::Right(Proof { terms: true, ..Proof::default() })),
            AuthData::Password(answer) => self.check_password(asked.user_id, answer).await,
            AuthData::EmailIdentity(answer) => {
                let creds = &answer.thirdparty_id_creds;
                let (sid, secret) = (creds.sid.as_str(), creds.client_secret.as_str());
                match self.0.emails.proven(asked.email, sid, secret).await {
                    Ok(Some(proven)) => {
                        Ok(Answer::Right(Proof { email: Some(proven), ..Proof::default() }))
                    }
                    Ok(None) => Ok(Answer::Pending("The link in the mail was not followed yet")),
                    Err(error) if error.errcode == "M_THREEPID_AUTH_FAILED" => {
                        Ok(Answer::Wrong("There is no such proof of an address"))
                    }
                    Err(error) => Err(error),
                }
            }
            AuthData::RegistrationToken(answer) => {
                let pending = self.pending_uses_but(&answer.token, asked.id);
                let valid = self.0.registration.is_valid_token(&answer.token, pending).await?;
                let registration_token = Some(secret::Token::from(answer.token.clone()));
                Ok(if valid {
                    Answer::Right(Proof { registration_token, ..Proof::default() })
                } else {
                    Answer::Wrong("The registration token is not valid")
                })
            }
            _ => Ok(Answer::Wrong("The stage is not supported")),
        }
    }

    async fn check_password(
        &self,
        user_id: Option<&UserId>,
        answer: &Password,
    ) -> Result<Answer, ApiError> {
        let named = match &answer.identifier {
            UserIdentifier::Matrix(identifier) => LoginName::Id(identifier.user.clone()),
            UserIdentifier::Email(identifier) => match canonical(&identifier.address) {
                Ok(address) => LoginName::Email(address),
                Err(_) => return Ok(Answer::Wrong("The user is not known by this identifier")),
            },
            _ => return Ok(Answer::Wrong("The user is not known by this identifier")),
        };
        let named = self.0.login.user_of(&named).await?;
        let Some(user_id) = user_id.filter(|user_id| named.as_deref() == Some(*user_id)) else {
            return Err(ApiError::forbidden("This is another user's session"));
        };
        let right = self.0.login.verified(user_id, &answer.password).await?.is_some();
        Ok(if right {
            Answer::Right(Proof::default())
        } else {
            Answer::Wrong("The password is wrong")
        })
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
            flows: operation.flows.clone(),
            params: operation.params.clone(),
            email: operation.email,
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
        session.proof.merge(proof);
        let completed = session.completed.clone();
        drop(sessions);
        let proof = self.finish(id, &operation.flows);
        proof.ok_or_else(|| challenge(operation, id, &completed))
    }

    /// Ends a session whose flow is complete; gives what was proven in it.
    fn finish(&self, id: &str, flows: &[Vec<AuthType>]) -> Option<Proof> {
        let mut sessions = self.sessions();
        let is_complete = sessions.get_mut(id)?.is_complete(flows);
        let age = sessions.by_id.get(id).copied().filter(|_| is_complete)?;
        sessions.remove(age).map(|session| session.proof)
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
        .with("params", operation.params.clone())
        .with("session", json!(session))
        .with("completed", json!(names(completed)))
}

fn with_error(mut challenge: ApiError, errcode: &'static str, message: &'static str) -> ApiError {
    challenge.errcode = errcode.into();
    challenge.message = message.into();
    challenge
}
