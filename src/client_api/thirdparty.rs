//! Networks behind bridges: what the application services say of theirs.
//!
//! All whose registration names the protocol are asked at once, each a few things at a time; one that
//! does not answer in time is left out.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, future::join_all, stream};
use ruma::{
    api::client::thirdparty::{
        get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols,
        get_user_for_protocol, get_user_for_user_id,
    },
    thirdparty::{Location, Protocol, User},
};
use serde::de::DeserializeOwned;

use super::ClientApi;
use crate::{
    appservices::{Appservice, Appservices, instance_id},
    error::ApiError,
    http::Requester,
};

/// How many questions one application service is asked at once: more than it may be asked are not
/// asked at all.
const QUESTIONS_AT_ONCE: usize = 4;
/// How many results one look-up answers.
const RESULTS_MAX: usize = 1000;

/// `GET /_matrix/client/v3/thirdparty/protocols`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols>
pub(super) async fn get_protocols(
    app: Arc<ClientApi>,
    _auth: Requester,
    _request: get_protocols::v3::Request,
) -> Result<get_protocols::v3::Response, ApiError> {
    let registry = app.appservices.registry();
    let of_each = registry.all().iter().map(|appservice| {
        let protocols = appservice.row.protocols.iter();
        let questions: Vec<_> =
            protocols.map(|protocol| ask_protocol(&app, appservice, protocol)).collect();
        stream::iter(questions).buffered(QUESTIONS_AT_ONCE).collect::<Vec<_>>()
    });
    let mut protocols: BTreeMap<String, Protocol> = BTreeMap::new();
    for (name, answer) in join_all(of_each).await.into_iter().flatten().flatten() {
        merge(&mut protocols, name, answer);
    }
    Ok(get_protocols::v3::Response::new(protocols))
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol>
pub(super) async fn get_protocol(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_protocol::v3::Request,
) -> Result<get_protocol::v3::Response, ApiError> {
    let registry = app.appservices.registry();
    let speakers = speakers(registry.all(), &request.protocol);
    let questions = speakers.map(|appservice| ask_protocol(&app, appservice, &request.protocol));
    let mut protocols = BTreeMap::new();
    for (name, answer) in join_all(questions).await.into_iter().flatten() {
        merge(&mut protocols, name, answer);
    }
    let protocol = protocols.remove(&request.protocol);
    let protocol = protocol.ok_or_else(|| ApiError::not_found("The protocol is not known here"))?;
    Ok(get_protocol::v3::Response::new(protocol))
}

/// `GET /_matrix/client/v3/thirdparty/location/{protocol}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol>
pub(super) async fn get_location_for_protocol(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_location_for_protocol::v3::Request,
) -> Result<get_location_for_protocol::v3::Response, ApiError> {
    let protocol = Some(&*request.protocol);
    let locations: Vec<Location> = look_up(&app, ("location", protocol), request.fields).await?;
    Ok(get_location_for_protocol::v3::Response::new(locations))
}

/// `GET /_matrix/client/v3/thirdparty/location`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation>
pub(super) async fn get_location_for_room_alias(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_location_for_room_alias::v3::Request,
) -> Result<get_location_for_room_alias::v3::Response, ApiError> {
    let fields = BTreeMap::from([("alias".to_owned(), request.alias.to_string())]);
    let locations: Vec<Location> = look_up(&app, ("location", None), fields).await?;
    Ok(get_location_for_room_alias::v3::Response::new(locations))
}

/// `GET /_matrix/client/v3/thirdparty/user/{protocol}`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol>
pub(super) async fn get_user_for_protocol(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_user_for_protocol::v3::Request,
) -> Result<get_user_for_protocol::v3::Response, ApiError> {
    let protocol = Some(&*request.protocol);
    let users: Vec<User> = look_up(&app, ("user", protocol), request.fields).await?;
    Ok(get_user_for_protocol::v3::Response::new(users))
}

/// `GET /_matrix/client/v3/thirdparty/user`
/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser>
pub(super) async fn get_user_for_user_id(
    app: Arc<ClientApi>,
    _auth: Requester,
    request: get_user_for_user_id::v3::Request,
) -> Result<get_user_for_user_id::v3::Response, ApiError> {
    let fields = BTreeMap::from([("userid".to_owned(), request.userid.to_string())]);
    let users: Vec<User> = look_up(&app, ("user", None), fields).await?;
    Ok(get_user_for_user_id::v3::Response::new(users))
}

/// Those whose registration names the protocol.
fn speakers<'a>(
    all: &'a [Arc<Appservice>],
    protocol: &'a str,
) -> impl Iterator<Item = &'a Arc<Appservice>> {
    all.iter().filter(move |one| one.row.protocols.iter().any(|known| known == protocol))
}

async fn ask_protocol(
    app: &ClientApi,
    appservice: &Appservice,
    protocol: &str,
) -> Option<(String, Protocol)> {
    let path = ["_matrix", "app", "v1", "thirdparty", "protocol", protocol];
    let legacy = ["_matrix", "app", "unstable", "thirdparty", "protocol", protocol];
    let answer: Option<Protocol> =
        app.appservices.ask_json(appservice, (&path, &legacy), &[]).await;
    let mut answer = answer?;
    for instance in &mut answer.instances {
        instance.instance_id = Some(instance_id(&appservice.id, &instance.network_id));
    }
    Some((protocol.to_owned(), answer))
}

/// Several application services may bridge to the same network: their instances stand together.
fn merge(protocols: &mut BTreeMap<String, Protocol>, name: String, answer: Protocol) {
    match protocols.get_mut(&name) {
        Some(known) => known.instances.extend(answer.instances),
        None => {
            protocols.insert(name, answer);
        }
    }
}

/// Asks all that speak the protocol (or any) and puts their results together.
///
/// # Errors
/// 404 for a protocol that none speaks.
async fn look_up<T: DeserializeOwned>(
    app: &ClientApi,
    (kind, protocol): (&str, Option<&str>),
    fields: BTreeMap<String, String>,
) -> Result<Vec<T>, ApiError> {
    let fields = Appservices::fields(fields);
    let registry = app.appservices.registry();
    let asked: Vec<&Arc<Appservice>> = match protocol {
        Some(protocol) => speakers(registry.all(), protocol).collect(),
        None => registry.all().iter().filter(|one| !one.row.protocols.is_empty()).collect(),
    };
    if asked.is_empty() && protocol.is_some() {
        return Err(ApiError::not_found("The protocol is not known here"));
    }
    let tail = [kind].into_iter().chain(protocol);
    let path: Vec<&str> =
        ["_matrix", "app", "v1", "thirdparty"].into_iter().chain(tail.clone()).collect();
    let legacy: Vec<&str> =
        ["_matrix", "app", "unstable", "thirdparty"].into_iter().chain(tail).collect();
    let questions = asked
        .into_iter()
        .map(|one| app.appservices.ask_json::<Vec<T>>(one, (&path, &legacy), &fields));
    let answers = join_all(questions).await.into_iter().flatten().flatten();
    Ok(answers.take(RESULTS_MAX).collect())
}
