//! Tests of the whole way of a request: in process on a small state, and over real sockets.

mod app;
mod listener;

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use ruma::{
    api::client::{
        account::whoami,
        alias::get_alias,
        discovery::get_supported_versions,
        keys::upload_keys,
        message::{get_message_events, send_message_event},
        push::get_pushrules_all,
        session::logout,
        state::get_state_event_for_key,
        typing::create_typing_event,
    },
    device_id, event_id,
    push::Ruleset,
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    error::ApiError,
    http::{
        App, AppSettings, Authenticator, BODY_IDLE_MAX, Credentials, MaybeRequester, NoAuth,
        Options, RawRequest, Requester, Routes, SessionId, Standing, read_body,
    },
};

/// A server on which everyone with the token `good` is alice.
struct Server;

impl Authenticator for Server {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Requester, ApiError> {
        if credentials.token != "good" {
            return Err(ApiError::unknown_token("Nobody has this token", false));
        }
        Ok(Requester {
            user_id: user_id!("@alice:hs1").to_owned(),
            device_id: device_id!("DEVICE").to_owned(),
            session: SessionId([0; 32]),
            guest: false,
            standing: Standing::Good,
            admin: false,
            address: credentials.address,
            appservice: None,
        })
    }
}

async fn versions(
    _: Arc<Server>,
    auth: MaybeRequester,
    _: get_supported_versions::Request,
) -> Result<get_supported_versions::Response, ApiError> {
    let version = if auth.0.is_some() { "v1.19" } else { "v1.1" };
    Ok(get_supported_versions::Response::new(vec![version.to_owned()]))
}

async fn whoami(
    _: Arc<Server>,
    auth: Requester,
    _: whoami::v3::Request,
) -> Result<whoami::v3::Response, ApiError> {
    Ok(whoami::v3::Response::new(auth.user_id, auth.guest))
}

/// Answers with the alias it was asked for, to see what became of the path.
async fn alias(
    _: Arc<Server>,
    _: NoAuth,
    request: get_alias::v3::Request,
) -> Result<get_alias::v3::Response, ApiError> {
    Err(ApiError::not_found(request.room_alias.to_string()))
}

async fn send(
    _: Arc<Server>,
    _: Requester,
    _: send_message_event::v3::Request,
) -> Result<send_message_event::v3::Response, ApiError> {
    Ok(send_message_event::v3::Response::new(event_id!("$event").to_owned()))
}

/// Answers with the room, type and key it was asked for.
async fn state(
    _: Arc<Server>,
    _: Requester,
    request: get_state_event_for_key::v3::Request,
) -> Result<get_state_event_for_key::v3::Response, ApiError> {
    let asked = json!([request.room_id, request.event_type, request.state_key]);
    let asked = to_raw_value(&asked).map_err(ApiError::internal)?;
    Ok(get_state_event_for_key::v3::Response::new(asked))
}

async fn typing(
    _: Arc<Server>,
    _: Requester,
    _: create_typing_event::v3::Request,
) -> Result<create_typing_event::v3::Response, ApiError> {
    Ok(create_typing_event::v3::Response::new())
}

async fn messages(
    _: Arc<Server>,
    _: Requester,
    _: get_message_events::v3::Request,
) -> Result<get_message_events::v3::Response, ApiError> {
    Ok(get_message_events::v3::Response::new())
}

async fn keys(
    _: Arc<Server>,
    _: Requester,
    _: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response, ApiError> {
    panic!("this handler has a bug")
}

async fn rules(
    _: Arc<Server>,
    _: Requester,
    _: get_pushrules_all::v3::Request,
) -> Result<get_pushrules_all::v3::Response, ApiError> {
    Ok(get_pushrules_all::v3::Response::new(Ruleset::default()))
}

async fn logout(
    _: Arc<Server>,
    _: Requester,
    _: logout::v3::Request,
) -> Result<logout::v3::Response, ApiError> {
    Ok(logout::v3::Response::new())
}

/// Answers the body it got, and its path.
async fn echo(_: Arc<Server>, _: NoAuth, request: RawRequest) -> Result<Response, ApiError> {
    let body = read_body(request.body, 64 << 10, BODY_IDLE_MAX).await?;
    Ok((StatusCode::CREATED, format!("{} {}", request.path_arguments.join("|"), body.len()))
        .into_response())
}

async fn slow(_: Arc<Server>, _: NoAuth, _: RawRequest) -> Result<Response, ApiError> {
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    Ok("done".into_response())
}

fn routes() -> Routes<Server> {
    let bare = &[
        "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    ];
    Routes::new(Arc::new(Server))
        .add(versions)
        .add(whoami)
        .add(alias)
        .add_with(Options::DEFAULT.event(), send)
        .add_with(Options::DEFAULT.more_paths(bare), state)
        .add(typing)
        .add(messages)
        .add_with(Options::DEFAULT.body_bytes_max(2 << 20), keys)
        .add_with(Options::DEFAULT.more_paths(&["/_matrix/client/v3/pushrules"]), rules)
        .add(logout)
        .add_raw(&Method::POST, &["/echo/{a}/{b}"], echo)
        .add_raw(&Method::GET, &["/slow"], slow)
}

fn server() -> App {
    App::new(routes().into_router(), AppSettings::default())
}

/// A request of alice's.
fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", "Bearer good")
        .body(body.into())
        .unwrap()
}

/// Status, errcode and body of the answer to a request.
async fn ask(app: App, request: Request<Body>) -> (u16, String, Value) {
    let response = app.answer(request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (status, body["errcode"].as_str().unwrap_or_default().to_owned(), body)
}

/// Status and errcode of the answer to a request of alice's.
async fn code(method: &str, path: &str, body: impl Into<Body>) -> (u16, String) {
    let (status, errcode, _) = ask(server(), request(method, path, body)).await;
    (status, errcode)
}

fn is(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

/// The room of the tests, to keep the paths short.
const ROOM: &str = "/_matrix/client/v3/rooms/!room:hs1";

#[test]
fn the_routes_are_listed_with_all_paths_of_ruma() {
    let routes = routes();
    let listed: Vec<_> = routes.list().iter().map(|route| (&*route.method, route.path)).collect();
    for expected in [
        ("GET", "/_matrix/client/versions"),
        ("GET", "/_matrix/client/r0/account/whoami"),
        ("GET", "/_matrix/client/v3/account/whoami"),
        ("GET", "/_matrix/client/v3/rooms/{room_id}/state/{event_type}"),
        ("PUT", "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}"),
        ("POST", "/echo/{a}/{b}"),
    ] {
        assert!(listed.contains(&expected), "{expected:?}");
    }
}
