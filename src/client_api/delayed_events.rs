//! Delayed events (MSC4140): sending with a delay, and what is done to events that wait.
//!
//! The endpoints of several ages of the proposal are served, since clients still use all of them.
//! The id of an event is enough to act on it: the service that runs a call has no access token.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>

use std::sync::Arc;

use axum::response::Response;
use ruma::{
    TransactionId,
    api::{
        IncomingRequest, Metadata,
        client::{
            delayed_events::{
                send_delayed_event,
                update_delayed_event::{UpdateAction, unstable_v1, unstable_v2},
            },
            message::send_message_event,
            state::send_state_event,
        },
        error::DeserializationError,
    },
    events::TimelineEventType,
};
use serde_json::{Map, Value, json};

use super::{
    ClientApi,
    extended::{Extended, More},
    permissions::guests_may_not,
    raw::{parameter, written_json},
    send,
};
use crate::{
    delayed_events::{Action, Delayed, Status},
    error::ApiError,
    http::{MaybeRequester, RawRequest, Requester},
    storage::rows::delayed_events::{ClientTransaction, DelayedEventRow, Reason},
};

/// The paths of the list.
pub(super) const LIST_PATHS: &[&str] =
    &["/_matrix/client/unstable/org.matrix.msc4140/delayed_events"];
/// The paths of one event. Earlier clients find the two parts of the list below their names.
pub(super) const EVENT_PATHS: &[&str] =
    &["/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}"];

/// The parameter that turns a sending into a later one.
const DELAY: &str = "org.matrix.msc4140.delay";

/// The delay that a query may ask for.
#[derive(Debug)]
pub struct Delay(Option<String>);

impl More for Delay {
    fn read(request: &http::Request<&[u8]>) -> Result<Self, DeserializationError> {
        Ok(Self(parameter(request.uri().query().unwrap_or_default(), DELAY)))
    }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid>
///
/// With `org.matrix.msc4140.delay` it is sent later, and the answer is a `delay_id`.
pub(super) async fn send_message(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<send_message_event::v3::Request, Delay>,
) -> Result<Response, ApiError> {
    let Extended { request, more: Delay(delay) } = request;
    let Some(delay) = delay else {
        let sent = send::send_message(app, auth, request).await?;
        return Ok(answer(&json!({ "event_id": sent.event_id })));
    };
    let event_type = TimelineEventType::from(request.event_type.to_string());
    let endpoint = format!("send/{}/{event_type}", request.room_id);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let delayed = Delayed {
        user_id: auth.user_id.clone(),
        room_id: request.room_id,
        event_type,
        state_key: None,
        content: request.body.into_json(),
        delay_ms: milliseconds(&delay)?,
        transaction,
    };
    let delay_id = schedule(&app, &auth, delayed).await?;
    Ok(answer(&json!({ "delay_id": delay_id })))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
/// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>
///
/// With `org.matrix.msc4140.delay` it is sent later, and the answer is a `delay_id`.
pub(super) async fn send_state(
    app: Arc<ClientApi>,
    auth: Requester,
    request: Extended<send_state_event::v3::Request, Delay>,
) -> Result<Response, ApiError> {
    let Extended { request, more: Delay(delay) } = request;
    let Some(delay) = delay else {
        let sent = send::send_state(app, auth, request).await?;
        return Ok(answer(&json!({ "event_id": sent.event_id })));
    };
    // The path has no transaction id: a retry hands in another one.
    let (device_id, endpoint, id) = (auth.device_id.to_string(), String::new(), String::new());
    let delayed = Delayed {
        user_id: auth.user_id.clone(),
        room_id: request.room_id,
        event_type: TimelineEventType::from(request.event_type.to_string()),
        state_key: Some(request.state_key),
        content: request.body.into_json(),
        delay_ms: milliseconds(&delay)?,
        transaction: ClientTransaction { device_id, endpoint, id },
    };
    let delay_id = schedule(&app, &auth, delayed).await?;
    Ok(answer(&json!({ "delay_id": delay_id })))
}

/// `PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
pub(super) async fn send_delayed_event(
    app: Arc<ClientApi>,
    auth: Requester,
    request: send_delayed_event::unstable::Request,
) -> Result<send_delayed_event::unstable::Response, ApiError> {
    let endpoint = format!("delayed_event/{}/{}", request.room_id, request.event_type);
    let transaction = transaction(&auth, endpoint, &request.txn_id)?;
    let delayed = Delayed {
        user_id: auth.user_id.clone(),
        room_id: request.room_id,
        event_type: request.event_type,
        state_key: request.state_key,
        content: request.content.into_json(),
        delay_ms: u64::try_from(request.delay.as_millis()).unwrap_or(u64::MAX),
        transaction,
    };
    let delay_id = schedule(&app, &auth, delayed).await?;
    Ok(send_delayed_event::unstable::Response::new(delay_id))
}

/// `POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}/{action}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
///
/// Needs no access token; with one, the event must be that user's.
pub(super) async fn update_delayed_event(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: unstable_v2::Request,
) -> Result<unstable_v2::Response, ApiError> {
    let by = auth.0.as_ref().map(|requester| &*requester.user_id);
    app.delayed_events.act(&request.delay_id, action(&request.action)?, by).await?;
    Ok(unstable_v2::Response::new())
}

/// `POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
///
/// The earlier form, with the action in the body. It needs no access token either.
pub(super) async fn update_delayed_event_by_body(
    app: Arc<ClientApi>,
    auth: MaybeRequester,
    request: WithoutToken<unstable_v1::Request>,
) -> Result<unstable_v1::Response, ApiError> {
    let by = auth.0.as_ref().map(|requester| &*requester.user_id);
    let request = request.0;
    app.delayed_events.act(&request.delay_id, action(&request.action)?, by).await?;
    Ok(unstable_v1::Response::new())
}

/// A request of ruma's to an endpoint that takes a token and needs none.
#[derive(Debug)]
pub struct WithoutToken<R>(R);

impl<R: Metadata> Metadata for WithoutToken<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = ruma::api::auth_scheme::AccessTokenOptional;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for WithoutToken<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_arguments: &[&str],
    ) -> Result<Self, DeserializationError> {
        R::try_from_http_request_inner(request, path_arguments).map(Self)
    }
}

/// `GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
///
/// Answers the list in the forms of all ages of the proposal.
pub(super) async fn get_delayed_events(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let query = request.head.uri.query().unwrap_or_default();
    let status = match parameter(query, "status").as_deref() {
        None => None,
        Some("scheduled") => Some(Status::Scheduled),
        Some("finalised" | "finalized") => Some(Status::Finalized),
        Some(_) => return Err(ApiError::invalid_param("The status is unknown")),
    };
    let wanted: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "delay_id")
        .map(|(_, value)| value.into_owned())
        .collect();
    let from = parameter(query, "from");
    drop(request);
    let page = app.delayed_events.list(auth.user_id, status, from.as_deref()).await?;
    let events: Vec<_> = page
        .events
        .into_iter()
        .filter(|(delay_id, _)| wanted.is_empty() || wanted.contains(delay_id))
        .collect();
    Ok(answer(&list(&events, status, page.next_batch)))
}

/// `GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayId}`
/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4140>
///
/// `scheduled` and `finalised` in place of the id give these parts of the list.
pub(super) async fn get_delayed_event(
    app: Arc<ClientApi>,
    auth: Requester,
    request: RawRequest,
) -> Result<Response, ApiError> {
    let delay_id = request.path_arguments.first().cloned().unwrap_or_default();
    let from = parameter(request.head.uri.query().unwrap_or_default(), "from");
    drop(request);
    let status = match delay_id.as_str() {
        "scheduled" => Status::Scheduled,
        "finalised" | "finalized" => Status::Finalized,
        _ => {
            let row = app.delayed_events.get(&auth.user_id, &delay_id).await?;
            return Ok(answer(&event(&delay_id, &row)));
        }
    };
    let page = app.delayed_events.list(auth.user_id, Some(status), from.as_deref()).await?;
    Ok(answer(&list(&page.events, Some(status), page.next_batch)))
}

async fn schedule(app: &ClientApi, auth: &Requester, delayed: Delayed) -> Result<String, ApiError> {
    app.limits_of(auth).messages.check(&auth.user_id)?;
    check_member_event(auth, &delayed)?;
    app.delayed_events.schedule(delayed).await
}

/// What has limits of its own, and for guests more than that, cannot wait: nobody would hold to them
/// when the time comes.
fn check_member_event(auth: &Requester, delayed: &Delayed) -> Result<(), ApiError> {
    if delayed.event_type != TimelineEventType::RoomMember || delayed.state_key.is_none() {
        return Ok(());
    }
    if auth.guest {
        return Err(guests_may_not());
    }
    let content: Map<String, Value> = serde_json::from_str(delayed.content.get())
        .map_err(|_| ApiError::bad_json("The content is not an object"))?;
    match content.get("membership").and_then(Value::as_str) {
        Some("leave" | "ban") => Ok(()),
        _ => Err(ApiError::forbidden("Invites, joins and knocks cannot be delayed")),
    }
}

fn action(action: &UpdateAction) -> Result<Action, ApiError> {
    match action {
        UpdateAction::Restart => Ok(Action::Restart),
        UpdateAction::Send => Ok(Action::Send),
        UpdateAction::Cancel => Ok(Action::Cancel),
        _ => Err(ApiError::invalid_param("The action is `restart`, `send` or `cancel`")),
    }
}

fn transaction(
    auth: &Requester,
    endpoint: String,
    id: &TransactionId,
) -> Result<ClientTransaction, ApiError> {
    if id.as_str().len() > 255 {
        return Err(ApiError::invalid_param("A transaction id has at most 255 bytes"));
    }
    Ok(ClientTransaction { device_id: auth.device_id.to_string(), endpoint, id: id.to_string() })
}

fn milliseconds(delay: &str) -> Result<u64, ApiError> {
    delay.parse().map_err(|_| ApiError::invalid_param("The delay is no number of milliseconds"))
}

fn list(
    events: &[(String, DelayedEventRow)],
    status: Option<Status>,
    next_batch: Option<String>,
) -> Value {
    let (waiting, done): (Vec<_>, Vec<_>) =
        events.iter().partition(|(_, row)| row.outcome.is_none());
    let mut list = Map::new();
    let all: Vec<Value> = events.iter().map(|(id, row)| event(id, row)).collect();
    list.insert("delayed_events".to_owned(), all.into());
    if status != Some(Status::Finalized) {
        let waiting: Vec<Value> = waiting.iter().map(|(id, row)| event(id, row)).collect();
        list.insert("scheduled".to_owned(), waiting.into());
    }
    if status != Some(Status::Scheduled) {
        let done: Vec<Value> = done.iter().map(|(id, row)| finalized(id, row)).collect();
        list.insert("finalised".to_owned(), done.into());
    }
    if let Some(token) = next_batch {
        list.insert("next_batch".to_owned(), token.into());
    }
    Value::Object(list)
}

/// An event as the newest form of the proposal has it.
fn event(delay_id: &str, row: &DelayedEventRow) -> Value {
    let mut event = json!({
        "delay_id": delay_id,
        "room_id": row.room_id,
        "type": row.event_type,
        "content": row.content,
        "delay": row.delay_ms,
        "running_since": row.running_since,
    });
    let mut put = |name: &str, value: Value| event[name] = value;
    if let Some(state_key) = &row.state_key {
        put("state_key", json!(state_key));
    }
    if let Some(outcome) = &row.outcome {
        put("finalised_ts", json!(outcome.ts));
        if let Some(event_id) = &outcome.event_id {
            put("event_id", json!(event_id));
        }
        if let Some((errcode, error)) = &outcome.error {
            put("error", json!({ "errcode": errcode, "error": error }));
        }
    }
    event
}

/// An event that came to its end, in the form of js-sdk.
fn finalized(delay_id: &str, row: &DelayedEventRow) -> Value {
    let mut event = event(delay_id, row);
    let Some(outcome) = &row.outcome else { return event };
    let sent = if outcome.event_id.is_some() { "send" } else { "cancel" };
    let reason = match outcome.reason {
        Reason::Delay => "delay",
        Reason::Action => "action",
        Reason::Error => "error",
    };
    let delayed = event.clone();
    event["outcome"] = json!(sent);
    event["reason"] = json!(reason);
    event["origin_server_ts"] = json!(outcome.ts);
    event["delayed_event"] = delayed;
    event
}

fn answer(body: &Value) -> Response {
    written_json(body.to_string())
}
